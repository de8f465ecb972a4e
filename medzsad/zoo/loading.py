"""From a name or a checkpoint file to a detector ready to predict."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from medzsad.backends.runtimes import resolve_backend
from medzsad.detectors.checkpoint import Checkpoint, is_checkpoint_name, read_checkpoint
from medzsad.detectors.devices import resolve_precision
from medzsad.detectors.registry import detector_class
from medzsad.errors import ModelNotReady
from medzsad.settings import DetectorSpec
from medzsad.storage import cache
from medzsad.zoo.catalogue import (
    WeightFile,
    ZooEntry,
    catalogue,
    find_clip,
    find_entry,
    nearest_names,
    weight_files,
)
from medzsad.zoo.fetch import how_to_get, require_ready

if TYPE_CHECKING:
    from medzsad.detectors.base import AnomalyDetector
    from medzsad.detectors.features.base import PatchFeatures

RUN_ADAPTER, RUN_CLIP = "adapter.safetensors", "clip.safetensors"
"""Files of a training run's folder."""


def load_detector(
    name: str | os.PathLike[str] = "medzsad-mini",
    *,
    device: str | torch.device = "auto",
    precision: str = "auto",
    clip_weights: str | os.PathLike[str] | None = None,
    adapter: str | os.PathLike[str] | None = None,
    organ: str | None = None,
    class_name: str | None = None,
    backend: str = "torch",
    normals: str | os.PathLike[str] | None = None,
    any_modality: bool = False,
    say: Callable[[str], None] | None = None,
) -> AnomalyDetector:
    """Build a detector, ready to predict; download nothing, unless ``clip_weights`` is an open_clip tag.

    Args:
        name: a name of the model zoo, a medzsad checkpoint (``.safetensors``, or a profile of normals), or
            the folder of a training run.
        device: ``"auto"`` (CUDA, then MPS, then CPU) or a torch device.
        precision: ``"auto"`` (bf16 where the device computes it natively and the method's scores stay within
            about 1e-3, else fp32), ``"fp32"``, ``"bf16"`` or ``"fp16"``.
        clip_weights: for CLIP-based detectors, the backbone's weights instead of those that ``name`` stands
            for: a local file, a weight file of the zoo or an open_clip tag. For a profile of normal images,
            also one that is joined to a detector without CLIP, a local file with the weights of the features
            that it was made with.
        adapter: a file used instead of the one that ``name`` stands for: a medzsad checkpoint of the same
            method, or weights that the method's authors published.
        organ: what the images show, for methods whose texts name it: a name of
            :mod:`medzsad.detectors.organs`, which brings phrases for the methods that take them.
        class_name: what the images show, in words, e.g. ``"metal nut"``; with ``organ`` instead of the
            organ's own name. With neither, texts stay as they are: object-agnostic, as a rule.
        backend: what computes: ``"torch"``; ``"openvino"`` or ``"onnx"`` (ONNX Runtime), on the CPU, in fp32
            unless OpenVINO is asked for bf16; or ``"auto"``, what ``medzsad models time`` measured to be the
            fastest of those whose numbers are PyTorch's, with the fastest precision where that is ``"auto"``.
        normals: a profile of normals (``medzsad normals fit``): the detector returned joins both.
            The profile always computes with PyTorch, in fp32.
        any_modality: let profiles of normals score scans of other modalities than theirs, too.
        say: is told, in a line, that texts name something which they did not name in training. That a graph
            is made for a backend, and what ``"auto"`` takes, is logged.

    Raises:
        ModelNotReady: on an unknown name, device, precision or backend, or weights that are missing or
            damaged, or a backend that cannot be used. If the zoo's weights are missing, the message says how
            to get them.
        OutputNotWritable: if a graph for a backend cannot be stored in the cache.
    """
    spec = DetectorSpec(
        model=os.fspath(name),
        device=str(device),
        precision=precision,
        clip_weights=None if clip_weights is None else os.fspath(clip_weights),
        adapter=None if adapter is None else os.fspath(adapter),
        organ=organ,
        class_name=class_name,
        backend=backend,
        normals=None if normals is None else os.fspath(normals),
        any_modality=any_modality,
    )
    return load_spec(spec, say=say)


def load_spec(spec: DetectorSpec, *, say: Callable[[str], None] | None = None) -> AnomalyDetector:
    """Return the detector that a spec asks for; see :func:`load_detector`."""
    if spec.normals is not None:
        from medzsad.detectors.normals.combination import Combined

        own, of_profile = spec.clip_weights, None
        if own is not None and not _takes_clip(spec.model):
            own, of_profile = None, own
        detector = load_spec(replace(spec, normals=None, clip_weights=own), say=say)
        profile = _load_profile(spec, detector, of_profile)
        return Combined(detector, profile).eval().requires_grad_(False)
    torch_device, graph_precision = resolve_backend(spec.backend, spec.device, spec.precision)
    chosen: str = resolve_precision(spec.precision, torch_device)
    name, weights, backend = spec.model, spec.clip_weights, spec.backend
    given = None if spec.adapter is None else Path(spec.adapter).expanduser()
    asked = {"organ": spec.organ, "class_name": spec.class_name}
    shown = {key: value for key, value in asked.items() if value is not None}
    run = run_adapter(name)
    if run is not None:
        # A run that began with random CLIP weights keeps them beside what it learned.
        beside = run.parent / RUN_CLIP
        weights = str(beside) if weights is None and beside.is_file() else weights
        detector = _from_checkpoint(run if given is None else given, None, weights, shown)
        detector.name = run.parent.resolve().name
    elif is_checkpoint_name(name):
        path = Path(name).expanduser()
        detector = _from_checkpoint(path if given is None else given, None, weights, shown)
        detector.name = path.stem
    elif Path(name).is_file():
        raise ModelNotReady(
            f"{name}: not a medzsad checkpoint; expected a .safetensors file, or a profile of normals"
        )
    else:
        entry = find_entry(name)
        detector = _from_entry(entry, weights, given, shown)
        detector.name = name
        if given is None:
            detector.seen = entry.seen or detector.seen
    detector.eval().requires_grad_(False)
    detector.any_modality = spec.any_modality
    if shown and say is not None:
        _tell_unseen(detector, say)
    if spec.precision == "auto" and not detector.bounded_in_bf16:
        chosen = "fp32"
    if backend == "auto":
        backend, chosen, graph_precision = _choose_backend(
            detector, name, torch_device, spec.precision, chosen, say
        )
    if backend != "torch":
        from medzsad.backends.detector import GraphDetector

        return GraphDetector(detector, backend, graph_precision)
    detector.use_precision(chosen)
    return detector.to(torch_device).eval().requires_grad_(False)


def load_features(
    name: str, *, image_size: int | None = None, weights: str | os.PathLike[str] | None = None
) -> PatchFeatures:
    """Build a frozen backbone by its name, ready to compute; download nothing.

    Args:
        name: ``"lite0"`` or ``"mini"``, which are in the package; ``"dinov2-s14"``, ``"dinov2-b14"``; or a
            CLIP's weight file of the zoo, or a model of the zoo with a CLIP inside. ``"clip:NAME"`` is the
            same as such a name.
        image_size: side of the input in pixels; None for the backbone's own.
        weights: a local file instead of the weights in the cache or in the package.

    Raises:
        ModelNotReady: if there is no such backbone, the image size does not fit, or the weights are missing
            or damaged. If the zoo's are missing, the message says how to get them.
    """
    from medzsad.detectors.features.base import BACKBONES, build_features

    given = None if weights is None else Path(weights).expanduser()
    if name in ("lite0", "mini"):
        return build_features(name, image_size=image_size, weights=given)
    file = _features_file(name, tuple(BACKBONES))
    if given is None and not cache.is_ready(file.name):
        raise ModelNotReady(
            f"features {name!r}: their weights are not on this machine; {how_to_get([file], file.name)}; "
            "or give a local file"
        )
    return build_features(
        name,
        image_size=image_size,
        weights=cache.slot(file.name) if given is None else given,
        backbone=file.architecture,
    )


def _features_file(name: str, backbones: tuple[str, ...]) -> WeightFile:
    """Return the weight file that features called ``name`` are computed with."""
    known = catalogue()
    if name in backbones:
        return known.files[name]
    bare = name.removeprefix("clip:")
    part = known.models[bare].clip if bare in known.models else bare
    if part in known.files and known.files[part].kind == "clip":
        return known.files[part]
    clips = [file.name for file in known.files.values() if file.kind == "clip"]
    near = nearest_names(bare, [*backbones, *clips, *(n for n, e in known.models.items() if e.clip)])
    question = f" Did you mean {' or '.join(near)}?" if near else ""
    raise ModelNotReady(
        f"unknown features {name!r}; use {', '.join(backbones)} or the name of a CLIP.{question} "
        "medzsad models list shows all models."
    )


def _takes_clip(model: str) -> bool:
    """Whether weights that are given with a model are its own, and not those of the profile beside it."""
    if run_adapter(model) is not None:
        return True
    if is_checkpoint_name(model):
        checkpoint = read_checkpoint(Path(model).expanduser())
        return checkpoint.method == "normals" or checkpoint.settings.get("backbone") is not None
    return find_entry(model).clip is not None


def _load_profile(spec: DetectorSpec, beside: AnomalyDetector, weights: str | None) -> AnomalyDetector:
    """Return the profile of normals that a spec names, on the device of the detector ``beside`` it."""
    path = str(spec.normals)
    checkpoint = read_checkpoint(Path(path).expanduser())
    if checkpoint.method != "normals":
        raise ModelNotReady(
            f"{path}: holds a {checkpoint.method!r} detector, not a profile of normals; make one by medzsad "
            "normals fit"
        )
    profile = _from_checkpoint(Path(path).expanduser(), None, weights, {})
    profile.name, profile.any_modality = Path(path).stem, spec.any_modality
    return profile.to(beside.device).eval().requires_grad_(False)


def clip_weights_of(models: Sequence[str], clip_weights: str | None) -> dict[str, str | None]:
    """Return ``clip_weights`` for each of several models that has a CLIP inside, and None for the others.

    Where none has one, all get them, so that loading says that they fit none.
    """
    known = catalogue().models
    without = [name for name in models if name in known and known[name].clip is None]
    spared = without if len(without) < len(set(models)) else []
    return {name: None if name in spared else clip_weights for name in models}


def run_adapter(name: str | os.PathLike[str]) -> Path | None:
    """Return the adapter in the folder of a training run.

    None if ``name`` is no folder, or is a model's name, too.

    Raises:
        ModelNotReady: if the folder holds no adapter.
    """
    folder = Path(name).expanduser()
    if not folder.is_dir() or os.fspath(name) in catalogue().models:
        return None
    if not (folder / RUN_ADAPTER).is_file():
        raise ModelNotReady(f"{folder}: a folder without {RUN_ADAPTER}; give the folder of a training run")
    return folder / RUN_ADAPTER


def _from_entry(
    entry: ZooEntry, clip_weights: str | None, adapter: Path | None, shown: Mapping[str, str]
) -> AnomalyDetector:
    """Return the zoo's detector, from its parts in the cache or from what is given instead."""
    if clip_weights is not None and entry.clip is None:
        raise ModelNotReady(f"{entry.name} has no CLIP inside: it takes no CLIP weights; leave them out")
    _check_shown(detector_class(entry.method), shown)
    known = weight_files() if entry.parts else {}
    # A checkpoint of ours holds all but the CLIP's weights; other parts are put together by the method.
    ours = entry.path
    if entry.adapter is not None and known[entry.adapter].kind == "medzsad":
        ours = cache.slot(entry.adapter)
    replaced = [entry.clip] if clip_weights is not None else []
    if adapter is not None:
        replaced.append(entry.adapter)
    require_ready(entry, given=replaced)
    if clip_weights is None and entry.clip is not None:
        clip_weights = str(cache.slot(entry.clip))
    if adapter is not None and (entry.path is not None or _is_checkpoint(adapter)):
        ours = adapter
    elif adapter is not None:
        ours = None
    if ours is not None:
        return _from_checkpoint(ours, entry, clip_weights, shown)
    if adapter is None and entry.adapter is not None:
        adapter = cache.slot(entry.adapter)
    settings = dict(entry.settings)
    if entry.clip is not None:
        clip = known[entry.clip]
        assert clip.architecture is not None  # every CLIP's entry has it
        settings["backbone"] = clip.architecture
        clip_weights = _resolve_clip(clip.architecture, clip_weights)
        if entry.clip not in replaced:
            settings.setdefault("clip_weights", clip.tag or clip.name)
            # AdaCLIP runs OpenAI's weights with plain GELU on purpose; what others do the weights decide.
            if entry.method != "adaclip" and clip.quick_gelu is not None:
                settings.setdefault("quick_gelu", clip.quick_gelu)
    with _named_errors(str(adapter or entry.name), "the weights do not fit their method"):
        return detector_class(entry.method).assemble(
            settings, clip_weights=clip_weights, adapter=adapter, **shown
        )


def _from_checkpoint(
    path: Path, entry: ZooEntry | None, clip_weights: str | None, shown: Mapping[str, str]
) -> AnomalyDetector:
    """Return a detector from a checkpoint of medzsad's own, which must be of the method of ``entry``."""
    checkpoint = read_checkpoint(path)
    if entry is not None and checkpoint.method != entry.method:
        raise ModelNotReady(
            f"{path}: holds a {checkpoint.method!r} detector, but {entry.name} is {entry.method!r}"
        )
    with _named_errors(str(path), "the checkpoint does not fit its method"):
        method = detector_class(checkpoint.method)
        _check_shown(method, shown)
        if method.method == "normals":
            return _normals(checkpoint, clip_weights)
        backbone = checkpoint.settings.get("backbone")
        if backbone is None and clip_weights is not None:
            raise ModelNotReady("it has no CLIP inside: it takes no CLIP weights; leave them out")
        if backbone is not None:
            named = checkpoint.settings.get("clip_weights") if clip_weights is None else clip_weights
            found = find_clip_weights(backbone, named, ask=clip_weights is None)
            if found is not None and (clip_weights is not None or found != named):
                clip_weights = found
        detector = method.from_checkpoint(checkpoint, clip_weights=clip_weights, **shown)
    detector.seen = tuple(str(name) for name in checkpoint.training.get("seen", ()))
    if method.uses_organ:
        detector.seen_classes = _classes_of(checkpoint.training)
    return detector


def _normals(checkpoint: Checkpoint, weights: str | None) -> AnomalyDetector:
    """Return the detector of a profile of normal images, with the features that it names."""
    from medzsad.detectors.normals.model import NormalsDetector

    settings = checkpoint.settings
    features = load_features(str(settings["features"]), image_size=settings["image_size"], weights=weights)
    return NormalsDetector.from_checkpoint(checkpoint, features=features)


def find_clip_weights(
    backbone: str | Mapping[str, Any], named: str | None, *, ask: bool = True
) -> str | None:
    """Return the file of CLIP weights in the cache, or else what they are called.

    A file, or an open_clip tag.

    Args:
        backbone: open_clip's name of the model, or its configuration.
        named: what they are called; None for random ones.
        ask: do not download what is called by a tag, but say how to get it.

    Raises:
        ModelNotReady: see ``ask``.
    """
    found = _resolve_clip(backbone, named)
    if ask and found == named and isinstance(named, str):
        _require_local(named, backbone)
    return found


def _resolve_clip(backbone: str | Mapping[str, Any], weights: str | None) -> str | None:
    """Return the cache's file where ``weights`` is a weight file of the zoo, or a tag of which it has one."""
    if weights is None or Path(weights).expanduser().is_file():
        return weights
    file = find_clip(weight_files(), backbone, weights)
    return weights if file is None or not cache.is_ready(file.name) else str(cache.slot(file.name))


def _require_local(tag: str, backbone: str | Mapping[str, Any]) -> None:
    """Raise ModelNotReady if weights that only a checkpoint asks for would have to be downloaded."""
    from medzsad.detectors.clip.pretrained import find_local, is_tag

    if not isinstance(backbone, str) or not is_tag(tag, backbone) or find_local(tag, backbone) is not None:
        return
    file = find_clip(weight_files(), backbone, tag)
    if file is None:
        way = f"give `clip_weights` {tag} to have open_clip download them"
    else:
        way = how_to_get([file], file.name)
    raise ModelNotReady(
        f"its CLIP weights ({tag!r} of {backbone}) are not on this machine: {way}, or give a local file"
    )


def _is_checkpoint(path: Path) -> bool:
    """Whether a file is a checkpoint of ours, or at least can be nothing else."""
    if path.suffix != ".safetensors":
        return False
    try:
        metadata, _ = cache.read_header(path)
    except (ModelNotReady, OSError):
        return True  # missing or damaged: reading it says so
    return cache.METADATA_KEY not in metadata or "medzsad" in metadata


def _check_shown(method: type[AnomalyDetector], shown: Mapping[str, str]) -> None:
    if shown and not method.uses_organ:
        what, setting = ("organ", "organ") if "organ" in shown else ("class", "class_name")
        raise ModelNotReady(
            f"method {method.method!r} is object-agnostic: its texts name no {what}; leave `{setting}` out"
        )


def _classes_of(training: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what a checkpoint's texts named in training; older ones named the classes themselves."""
    sets = training.get("data", ())
    return tuple(str(name) for one in sets for name in one.get("class_names", one.get("classes", ())))


def _tell_unseen(detector: AnomalyDetector, say: Callable[[str], None]) -> None:
    plain = {name.replace("-", " ").strip().casefold() for name in detector.seen_classes}
    name = detector.class_name
    if plain and name is not None and name.replace("-", " ").strip().casefold() not in plain:
        seen = ", ".join(dict.fromkeys(detector.seen_classes))
        say(f"{detector.name}: texts speak of {name!r}, which they did not in training ({seen})")


@contextlib.contextmanager
def _named_errors(origin: str, misfit: str) -> Iterator[None]:
    """Errors of building a detector as one ModelNotReady that names ``origin``."""
    try:
        yield
    except ModelNotReady as error:
        raise ModelNotReady(f"{origin}: {error}") from error
    except (KeyError, TypeError, ValueError, RuntimeError) as error:  # as torch and dicts do on misfits
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelNotReady(f"{origin}: {misfit} ({reason})") from error


def _choose_backend(
    detector: AnomalyDetector,
    name: str,
    device: torch.device,
    precision: str,
    unmeasured: str,
    say: Callable[[str], None] | None,
) -> tuple[str, str, str]:
    """Backend, PyTorch's precision and a graph's for ``"auto"``: as measured, else PyTorch's own."""
    if device.type != "cpu":
        if say is not None:
            say(f"backend: torch (the others compute on the CPU, this is {device.type})")
        return "torch", unmeasured, "fp32"
    from medzsad.backends.records import choose
    from medzsad.backends.store import digest_of

    backend, chosen = choose(digest_of(detector), precision, name)
    return backend, unmeasured if chosen == "auto" else chosen, chosen
