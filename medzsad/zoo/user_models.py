"""Models that the user adds and removes (``medzsad models import``, ``remove``): the cache's catalogue."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medzsad.detectors.registry import METHODS
from medzsad.errors import ModelNotReady
from medzsad.storage import cache
from medzsad.storage.cache import locked
from medzsad.storage.text_files import parse_json
from medzsad.zoo.catalogue import (
    WITHOUT_CLIP,
    Catalogue,
    WeightFile,
    catalogue,
    find_clip,
    find_entry,
    users_of,
)
from medzsad.zoo.catalogue_files import check_name, read_catalogue

if TYPE_CHECKING:
    from medzsad.detectors.headclip.layouts import Tower
    from medzsad.zoo.convert import Recognised

DEFAULT_BACKBONE = "clip-vit-l-14-336-openai"
_METHOD_OF_KIND = {"headclip": "headclip", "anomalyclip": "anomalyclip", "adaclip": "adaclip"}


@dataclass(frozen=True)
class Imported:
    """What an import did.

    Attributes:
        file: the weight file that is ready now.
        verified: whether its hash is the catalogue's.
        models: the models that use it, new ones first.
        sha256: of the original.
        notes: lines for the user: how the file was understood, and what of it is not used.
    """

    file: WeightFile
    verified: bool
    models: list[str]
    sha256: str
    notes: tuple[str, ...] = ()


@dataclass
class Removed:
    """What a removal did.

    Attributes:
        freed: bytes.
        files: names of the weight files deleted.
        unregistered: names of imported models that are no longer known.
        kept: per weight file that stays, the ready models that need it.
        broken: models that are no longer ready, besides the one named.
    """

    freed: int = 0
    files: list[str] = field(default_factory=list)
    unregistered: list[str] = field(default_factory=list)
    kept: dict[str, list[str]] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)


def import_file(
    path: Path,
    name: str,
    *,
    backbone: str | None = None,
    architecture: str | None = None,
    unverified: bool = False,
    mapping: Iterable[str] = (),
    head_parametrisation: str = "raw",
) -> Imported:
    """Make a local file the weights ``name``, or register new models under that name.

    Args:
        path: a file of HeadCLIP's, AnomalyCLIP's, AdaCLIP's, OpenAI's CLIP or open_clip's, or a
            medzsad checkpoint.
        name: a weight file or a model of the catalogue, or a new name.
        backbone: for a new adapter, the CLIP weight file it sits on.
        architecture: for a new CLIP, open_clip's model name; guessed by default.
        unverified: accept a file whose hash is not the catalogue's.
        mapping: for HeadCLIP's weights, ``THEIRS=OURS`` (see :mod:`medzsad.detectors.headclip.files`).
        head_parametrisation: what HeadCLIP's head weights stand for in the file: ``"raw"`` factors, or what a
            ``"softmax"`` or ``"sigmoid"`` makes factors of, as HeadCLIP's setting of that name says.

    Raises:
        ModelNotReady: if the file is not recognised, or does not fit ``name``.
        OutputNotWritable: if the cache cannot be written.
    """
    from medzsad.detectors.headclip.files import parse_map
    from medzsad.zoo.convert import install, recognise
    from medzsad.zoo.download import hash_file, mismatch

    check_name(name, "`name`")
    path = Path(path).expanduser()
    known = catalogue()
    source = recognise(
        path,
        mapping=parse_map(mapping),
        parametrisation=head_parametrisation,
        tower=lambda: tower_for(known, [name], backbone or DEFAULT_BACKBONE),
    )
    hashes = hash_file(path)
    file = _target(known, name, source)
    models: dict[str, dict[str, Any]] = {}
    if file is None:
        file, models = _describe_new(known, name, source, backbone, architecture)
    elif backbone is not None or architecture is not None:
        raise ModelNotReady(
            f"{file.name} is described by the catalogue: `backbone` and `architecture` are for new names"
        )
    wrong = mismatch(file, hashes)
    if wrong is not None and not unverified:
        raise ModelNotReady(
            f"{path}: not the file that the catalogue knows as {file.name} ({wrong}); "
            "import it under a new name, or accept it with `unverified`"
        )
    verified = wrong is None and (file.sha256 or file.git_blob) is not None
    with locked(cache.cache_folder() / "downloads" / f"{file.name}.lock"):
        install(file, source, hashes, verified=verified)
    if models:
        _register(file, models)
    using = [*models, *(n for n in users_of(file.name, catalogue().models) if n not in models)]
    return Imported(file, verified, using, hashes.sha256, source.notes)


def tower_for(known: Catalogue, names: Iterable[str], default: str = DEFAULT_BACKBONE) -> Tower:
    """Return the sizes of the CLIP that a model among ``names``, or a model that uses one of them, sits on.

    Raises:
        ModelNotReady: if ``default``, taken where no model is known, is no CLIP of the catalogue.
    """
    from medzsad.detectors.headclip.layouts import tower_of

    clips = [known.models[n].clip for n in names if n in known.models]
    clips += [known.models[user].clip for n in names for user in users_of(n, known.models)]
    clip = next((c for c in clips if c is not None), default)
    _check_backbone(known, clip)
    return tower_of(known.files[clip].architecture)


def remove(name: str) -> Removed:
    """Remove the weight file ``name``, or of the model ``name`` the weights that no other ready model needs.

    A name that is both stands for both: its own file goes in any case. Imported models are forgotten, too.

    Raises:
        ModelNotReady: if the name is unknown, embedded, or a backbone that imported adapters sit on.
        OutputNotWritable: if a file cannot be deleted.
    """
    known = catalogue()
    if name not in known.files:
        entry = find_entry(name)
        if not entry.parts:
            raise ModelNotReady(f"{name}: part of medzsad itself; there is nothing to remove")
    ready = [n for n, e in known.models.items() if e.parts and all(cache.is_ready(p) for p in e.parts)]
    named = [name] if name in known.files else []
    own = read_catalogue(cache.own_catalogue()) if cache.own_catalogue().is_file() else {}
    forgotten = [
        n
        for n, e in known.models.items()
        if e.origin == "imported" and (n == name or (named and name in e.parts and name in own["files"]))
    ]
    foreign = [n for n in forgotten if n != name and known.models[n].adapter not in (None, name)]
    if foreign:
        raise ModelNotReady(f"{name}: {', '.join(foreign)} need it as backbone; remove them first")
    outcome = Removed(unregistered=forgotten)
    candidates = list(named)
    for model in {name, *forgotten} & set(known.models):
        candidates += [part for part in known.models[model].parts if part not in candidates]
    for part in candidates:
        others = [n for n in users_of(part, known.models) if n in ready and n != name and n not in forgotten]
        if part not in named and others:
            outcome.kept[part] = others
            continue
        if cache.size_of(part):
            outcome.files.append(part)
        outcome.freed += cache.remove(part)
        outcome.broken += [n for n in others if n not in outcome.broken]
    # The description of an imported file goes with the last model that uses it.
    orphans = [
        part
        for part in own.get("files", {})
        if part in candidates and not set(users_of(part, known.models)) - set(forgotten)
    ]
    if forgotten or orphans:
        _unregister(orphans, forgotten)
    return outcome


def _target(known: Catalogue, name: str, source: Recognised) -> WeightFile | None:
    """Return the catalogue's file that ``source`` is to become; None if ``name`` is new."""
    if name not in known.files and name not in known.models:
        return None
    entry = known.models.get(name)
    candidates = [name] if name in known.files else []
    candidates += [part for part in (entry.parts if entry is not None else ()) if part != name]
    for part in candidates:
        if known.files[part].kind == source.kind:
            return known.files[part]
    kinds = " and ".join(dict.fromkeys(repr(known.files[part].kind) for part in candidates))
    raise ModelNotReady(
        f"{source.path}: recognised as {source.kind!r}, but {name} "
        + (f"is made of {kinds}" if kinds else "needs no weight files")
    )


def _describe_new(
    known: Catalogue, name: str, source: Recognised, backbone: str | None, architecture: str | None
) -> tuple[WeightFile, dict[str, dict[str, Any]]]:
    """Return the weight file of a new name, and the models to register for it."""
    if source.kind == "features":
        names = [file.name for file in known.files.values() if file.kind == "features"]
        raise ModelNotReady(f"{source.path}: DINOv2's weights; import them as {' or '.join(names)}")
    if source.kind == "clip":
        if backbone is not None:
            raise ModelNotReady(f"{source.path}: a CLIP has no backbone; `backbone` is for adapters")
        return _describe_clip(known, name, source, architecture)
    if architecture is not None:
        raise ModelNotReady(f"{source.path}: no CLIP; `architecture` is for CLIP weights")
    file = WeightFile(name, source.kind)
    title = f"Imported from {source.path.name}"
    clip = backbone or (_backbone_of(known, source) if source.kind == "medzsad" else DEFAULT_BACKBONE)
    if clip is not None:
        _check_backbone(known, clip)
    method = _METHOD_OF_KIND.get(source.kind) or _method_of(source)
    model = {"method": method, "title": title, "clip": clip, "adapter": name}
    return file, {name: {key: value for key, value in model.items() if value is not None}}


def _check_backbone(known: Catalogue, clip: str) -> None:
    if clip not in known.files or known.files[clip].kind != "clip":
        clips = ", ".join(n for n, f in known.files.items() if f.kind == "clip")
        raise ModelNotReady(f"`backbone` {clip!r} is no CLIP of the catalogue; use one of {clips}")


def _describe_clip(
    known: Catalogue, name: str, source: Recognised, architecture: str | None
) -> tuple[WeightFile, dict[str, dict[str, Any]]]:
    from medzsad.detectors.clip.configuration import read_configuration
    from medzsad.zoo.clip_shapes import guess_architecture

    if architecture is None:
        architecture = guess_architecture(source.tensors, source.quick_gelu, str(source.path))
    _, config = read_configuration(architecture, text=True)
    quick_gelu = source.quick_gelu
    if quick_gelu is None:
        # The user's choice between a name and its namesake with -quickgelu is an answer, too.
        quick_gelu = bool(config.get("quick_gelu", False))
    settings = {"image_size": config["vision_cfg"].get("image_size", 224)}
    models = {}
    for method in ("winclip", "clip"):
        if f"{method}-{name}" in known.models:
            raise ModelNotReady(f"`name` {name}: there is a model {method}-{name} already; use another name")
        models[f"{method}-{name}"] = {
            "method": method,
            "title": f"{'WinCLIP' if method == 'winclip' else 'Plain CLIP'} on {source.path.name}",
            "clip": name,
            "settings": settings,
        }
    file = WeightFile(name, "clip", architecture=architecture, quick_gelu=quick_gelu)
    return file, models


def _method_of(source: Recognised) -> str:
    """Return the method of a checkpoint of ours, which this version must know."""
    method = _header(source).get("method")
    if method not in METHODS:
        raise ModelNotReady(f"{source.path}: a checkpoint of method {method!r}, which this version lacks")
    return method


def _backbone_of(known: Catalogue, source: Recognised) -> str | None:
    """Return the catalogue's CLIP that a checkpoint of ours says it was trained with.

    None if it needs none.
    """
    settings = _header(source).get("settings", {})
    if _method_of(source) in WITHOUT_CLIP:
        return None
    backbone, weights = settings.get("backbone"), settings.get("clip_weights")
    found = find_clip(known.files, backbone, weights)
    if found is None:
        raise ModelNotReady(
            f"{source.path}: made on {backbone if isinstance(backbone, str) else 'a CLIP of its own'} with "
            f"weights {weights!r}, which the catalogue lacks; import those and name them with `backbone`"
        )
    return found.name


def _header(source: Recognised) -> dict[str, Any]:
    damaged = f"{source.path}: a medzsad checkpoint with damaged metadata"
    header = parse_json(source.header or "", damaged, ModelNotReady)
    if not isinstance(header, dict) or not isinstance(header.get("settings", {}), dict):
        raise ModelNotReady(damaged)
    return header


def _register(file: WeightFile, models: dict[str, dict[str, Any]]) -> None:
    fields = {
        "kind": file.kind,
        "architecture": file.architecture,
        "quick_gelu": file.quick_gelu,
        "licence": "unknown",
    }
    with _editing() as content:
        content["files"][file.name] = {key: value for key, value in fields.items() if value is not None}
        content["models"] |= models


def _unregister(files: list[str], models: list[str]) -> None:
    with _editing() as content:
        for section, names in (("files", files), ("models", models)):
            content[section] = {n: fields for n, fields in content[section].items() if n not in names}


@contextlib.contextmanager
def _editing() -> Iterator[dict[str, dict[str, Any]]]:
    """Return the cache's catalogue, locked, to be changed and written back whole."""
    import yaml

    path = cache.own_catalogue()
    with locked(cache.cache_folder() / "downloads" / "catalogue.lock"):
        content = read_catalogue(path) if path.is_file() else {"files": {}, "models": {}}
        yield content
        with cache.landing(path) as temporary:
            temporary.write_text(
                "# Written by `medzsad models import`.\n" + yaml.safe_dump(content, sort_keys=False),
                encoding="utf-8",
            )
