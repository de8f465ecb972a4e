"""``medzsad export bundle``: a detector as a MONAI bundle, for those who run it without our command line.

The folder is laid out as MONAI's bundle specification asks, with safetensors instead of pickled weights. Its
configs use :mod:`medzsad.monai`, so medzsad must be installed where the bundle runs.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib import metadata as packages
from importlib.resources import files as package_files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medzsad import __version__
from medzsad.detectors.checkpoint import read_checkpoint, save_checkpoint
from medzsad.errors import BadInput, OutputNotWritable
from medzsad.storage.atomic import sweep
from medzsad.storage.cache import METADATA_KEY
from medzsad.zoo.catalogue import ZooEntry, catalogue
from medzsad.zoo.loading import load_detector, run_adapter

if TYPE_CHECKING:
    from medzsad.detectors.base import AnomalyDetector
    from medzsad.detectors.clip.backbone import FrozenCLIP


CLIP_FILE = "clip.safetensors"
CONFIGS = ("inference.yaml", "evaluate.yaml", "logging.conf")


def export_bundle(
    name: str,
    folder: Path,
    *,
    clip_weights: str | None = None,
    adapter: str | None = None,
    organ: str | None = None,
    class_name: str | None = None,
    with_clip: bool = True,
) -> list[Path]:
    """Write the bundle of a detector; it appears complete or not at all.

    Args:
        name, clip_weights, adapter, organ, class_name: for :func:`medzsad.load_detector`.
        folder: to be made; an empty one is taken.
        with_clip: also write the part of a CLIP's weights that predicting needs. Without it the bundle is
            small, and takes the CLIP from the model cache where it runs.

    Returns:
        The files written.

    Raises:
        BadInput: if the folder is not empty, or the CLIP cannot be taken along.
        ModelNotReady: if the detector cannot be loaded.
        OutputNotWritable: if files cannot be written.
    """
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        kind = "a file" if folder.is_file() else "not empty"
        raise BadInput(f"{folder} is {kind}; give a new folder to write the bundle to")
    detector = load_detector(
        name,
        device="cpu",
        precision="fp32",
        clip_weights=clip_weights,
        adapter=adapter,
        organ=organ,
        class_name=class_name,
    )
    _check_backbone(detector, with_clip)
    entry = None if run_adapter(name) is not None else catalogue().models.get(name)
    tower = getattr(detector, "clip", None) if with_clip else None
    contents = Contents(
        detector=detector,
        entry=entry,
        own_adapter=adapter is None,
        own_clip=clip_weights is None,
        model=f"{_file_stem(detector.name)}.safetensors",
        clip=None if tower is None else CLIP_FILE,
    )
    with _appearing(folder) as root:
        for part in ("configs", "docs", "models"):
            (root / part).mkdir()
        facts = _training_facts(name, adapter, entry) | {"seen": list(detector.seen)}
        _save_detector(detector, root / "models" / contents.model, facts)
        if tower is not None and contents.clip is not None:
            _save_clip(tower, root / "models" / contents.clip)
        clip = "null" if contents.clip is None else f"$@bundle_root + '/models/{contents.clip}'"
        for file in CONFIGS:
            _write(root / "configs" / file, _filled(file, {"MODEL": contents.model, "CLIP": clip}))
        document = json.dumps(metadata(contents), indent=2, ensure_ascii=False)
        _write(root / "configs" / "metadata.json", document + "\n")
        _write(root / "docs" / "README.md", _filled("README.md", readme_fields(contents)))
        _write(root / "LICENSE", _licence())
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _check_backbone(detector: AnomalyDetector, with_clip: bool) -> None:
    """Raise BadInput on CLIPs whose configuration is not in the checkpoint and cannot be taken along."""
    backbone = getattr(getattr(detector, "config", None), "backbone", None)
    if not isinstance(backbone, str):
        return
    if backbone.startswith("local-dir:"):
        raise BadInput(
            f"{detector.name}: its CLIP is a folder of this machine ({backbone}), which no bundle can name"
        )
    if backbone.startswith("hf-hub:") and with_clip:
        raise BadInput(
            f"{detector.name}: its CLIP is a model of a hub ({backbone}); use `without_clip`, and it is "
            "taken from the hub's cache where the bundle runs"
        )


def _save_detector(detector: AnomalyDetector, path: Path, training: dict[str, Any]) -> None:
    checkpoint = detector.to_checkpoint()
    settings = dict(checkpoint.settings)
    if settings.get("clip_weights"):  # of a file its name, not its folder
        settings["clip_weights"] = Path(settings["clip_weights"]).name
    save_checkpoint(replace(checkpoint, settings=settings, training=training), path)


def _training_facts(name: str, adapter: str | None, entry: ZooEntry | None) -> dict[str, Any]:
    """How the detector came about, where a checkpoint of ours says so."""
    source: Path | None
    if adapter is not None:
        source = Path(adapter)
    elif entry is not None:
        source = entry.path
    else:
        source = run_adapter(name) or Path(name)
    if source is None or source.suffix != ".safetensors":
        return {}
    return read_checkpoint(source.expanduser()).training


def _save_clip(clip: FrozenCLIP, path: Path) -> None:
    """Return the towers that predicting needs, in half precision where that loses nothing."""
    from safetensors.torch import save_file

    tensors = {}
    for name, tensor in clip.state_dict().items():
        half = tensor.half()
        tensors[name] = (half if half.float().equal(tensor) else tensor).contiguous().clone()
    save_file(tensors, path, metadata={METADATA_KEY: json.dumps({"quick_gelu": clip.quick_gelu})})
    path.chmod(0o644)


@contextlib.contextmanager
def _appearing(folder: Path) -> Iterator[Path]:
    """Return a temporary folder that takes the name ``folder`` if all went well, and vanishes if not."""
    from safetensors import SafetensorError

    temporary = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        sweep(folder.parent)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".medzsad-"))
        temporary.chmod(0o755)  # mkdtemp makes folders private
        yield temporary
        temporary.replace(folder)
    except (OSError, SafetensorError) as error:  # the latter on a full disk
        reason = getattr(error, "strerror", None) or error
        raise OutputNotWritable(f"{folder}: cannot write the bundle ({reason})") from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _file_stem(name: str) -> str:
    """Return a name that configs can hold without quoting."""
    return name if re.fullmatch(r"[A-Za-z0-9][\w.+-]*", name, re.ASCII) else "model"


def _filled(file: str, values: dict[str, str]) -> str:
    template = package_files("medzsad") / "monai" / "bundle_files" / file
    text = template.read_text(encoding="utf-8")
    for key, value in values.items():
        text = text.replace("{{" + key + "}}", value)
    return text


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _licence() -> str:
    """Return the text of medzsad's own licence, from the installed package or from the source tree."""
    with contextlib.suppress(packages.PackageNotFoundError):
        text = packages.distribution("medzsad").read_text("licenses/LICENSE")
        if text:
            return text
    return (Path(__file__).parents[2] / "LICENSE").read_text(encoding="utf-8")


SCHEMA = "https://project-monai.github.io/schema/meta_schema_20240725.json"
UNKNOWN = "licence not known to medzsad: check before you pass it on"
_PACKAGES = ("nibabel", "open_clip_torch", "pytorch-ignite", "safetensors")


@dataclass(frozen=True)
class Contents:
    """What goes into a bundle.

    Attributes:
        detector: the detector.
        entry: its entry in the model zoo; None if it has none.
        own_adapter: whether what was learned is that of ``entry``.
        own_clip: whether the CLIP is that of ``entry``.
        model: name of the detector's file.
        clip: name of the CLIP's file; None if there is none.
    """

    detector: AnomalyDetector
    entry: ZooEntry | None
    own_adapter: bool
    own_clip: bool
    model: str
    clip: str | None

    @property
    def needs_clip(self) -> bool:
        """Whether the detector needs CLIP weights that are not in the bundle."""
        return self.clip is None and getattr(self.detector, "clip", None) is not None

    def licences(self) -> dict[str, str]:
        """Of each file of weights what it is, and its licence."""
        learned = self.entry.licence if self.entry is not None and self.own_adapter else "unknown"
        found = {self.model: f"{self.detector.name} ({UNKNOWN if learned == 'unknown' else learned})"}
        if self.clip is not None:
            known = self.entry.clip if self.entry is not None and self.own_clip else None
            file = catalogue().files.get(known) if known else None
            if file is None or file.licence == "unknown":
                found[self.clip] = f"CLIP ({UNKNOWN})"
            else:
                found[self.clip] = f"CLIP {file.name} ({file.licence}, {file.source or 'source unknown'})"
        return found


def metadata(contents: Contents) -> dict[str, Any]:
    """``metadata.json``: every field that MONAI's specification calls mandatory, and more."""
    detector, entry = contents.detector, contents.entry
    title = f"A detector of method {detector.method}" if entry is None or not entry.title else entry.title
    image: dict[str, Any] = {"type": "image", "format": "magnitude", "modality": "n/a", "dtype": "float32"}
    image |= {"spatial_shape": ["*", "*"], "value_range": [0, 1], "is_patch_data": False}
    colours = {"0": "red", "1": "green", "2": "blue"}
    return {
        "schema": SCHEMA,
        "version": __version__,
        "changelog": {__version__: f"written by medzsad {__version__}"},
        "monai_version": _version("monai"),
        "pytorch_version": _version("torch"),
        "numpy_version": _version("numpy"),
        "required_packages_version": {
            "medzsad": __version__,
            **{package: _version(package) for package in _PACKAGES},
        },
        "name": detector.name,
        "task": "Zero-shot anomaly detection in medical scans",
        "description": f"{title.rstrip('.')}. Slice by slice it maps how anomalous each voxel of a scan is.",
        "authors": "medzsad",
        "copyright": f"Configs: Apache-2.0. Weights: {'; '.join(contents.licences().values())}",
        "data_source": f"trained on: {', '.join(detector.seen) or 'nothing, or unknown'}",
        "data_type": "NIfTI, DICOM, PNG, JPEG or TIFF",
        "image_classes": "slices in [0, 1]; grey values are in all three channels alike",
        "pred_classes": "1 channel in [0, 1], 1 is most anomalous",
        "intended_use": "Research use only, not for diagnosis",
        "references": [entry.paper] if entry is not None and entry.paper else [],
        "medzsad": {
            "method": detector.method,
            "threshold": detector.threshold,
            "threshold_of_volumes": detector.for_volume().threshold,
            "settings": detector.settings,
        },
        "network_data_format": {
            "inputs": {"image": {**image, "num_channels": 3, "channel_def": colours}},
            "outputs": {"pred": {**image, "num_channels": 1, "channel_def": {"0": "anomaly map"}}},
        },
    }


def readme_fields(contents: Contents) -> dict[str, str]:
    """Return what is filled into the template of ``docs/README.md``."""
    detector, entry = contents.detector, contents.entry
    needs = ""
    clip = getattr(detector, "clip", None)
    if clip is not None and contents.needs_clip:
        named = detector.settings.get("clip_weights") or "those it was made with"
        needs = f"\n\nCLIP weights that are not in this bundle: {clip.name}, {named}"
        if entry is not None and entry.clip and contents.own_clip:
            needs += f" (`medzsad models fetch {entry.clip}`)"
        needs += "; or `--clip_weights FILE`."
    return {
        "NAME": detector.name,
        "TITLE": metadata(contents)["description"],
        "VERSION": __version__,
        "NEEDS": needs,
        "THRESHOLD": str(detector.for_volume().threshold),
        "PARTS": "\n".join(f"- `models/{file}`: {what}" for file, what in contents.licences().items()),
    }


def _version(package: str) -> str:
    return packages.version(package).partition("+")[0]
