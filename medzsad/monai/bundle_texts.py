"""What a bundle says of itself: ``metadata.json``, ``docs/README.md``, and the licences of what is in it."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata as packages
from typing import TYPE_CHECKING, Any

from medzsad import __version__
from medzsad.zoo.catalogue import ZooEntry, catalogue

if TYPE_CHECKING:
    from medzsad.detectors.base import AnomalyDetector

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
        "THRESHOLD": str(detector.threshold),
        "PARTS": "\n".join(f"- `models/{file}`: {what}" for file, what in contents.licences().items()),
    }


def _version(package: str) -> str:
    return packages.version(package).partition("+")[0]
