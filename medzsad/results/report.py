"""The JSON report of a prediction. Its fields are documented in docs/outputs.md."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict
from importlib import metadata
from typing import TYPE_CHECKING, Any

from medzsad.scans.own_results import mark

if TYPE_CHECKING:
    from medzsad.results.prediction import ScanPrediction

SCHEMA = 1
# Name of each value of the mask.
MASK_LABELS = {"1": "anomaly candidate"}
LIBRARIES = ("torch", "monai", "numpy", "nibabel", "pydicom")


def report(prediction: ScanPrediction) -> dict[str, Any]:
    """Everything but the voxels, JSON-serialisable, without patient data.

    The input's folder is left out on purpose: people name folders after patients.
    """
    import nibabel

    from medzsad import __version__

    scan = prediction.scan
    return _rounded(
        {
            "schema": SCHEMA,
            "result": mark("report", prediction.fingerprint),
            "name": scan.name,
            "score": prediction.score,
            "score_context": [asdict(context) for context in prediction.score_context],
            "model": prediction.settings.get("model"),
            "settings": {key: value for key, value in prediction.settings.items() if key != "model"},
            "planes": [str(plane) for plane in prediction.planes],
            "threshold": {"rule": prediction.threshold_rule, "value": prediction.threshold},
            "mask_labels": MASK_LABELS,
            "intensity": {"description": prediction.scaling.description, **prediction.scaling.settings},
            "scan": {
                "shape": list(scan.shape),
                "spacing_mm": list(scan.spacing) if scan.has_geometry else None,
                "affine": scan.affine.tolist() if scan.has_geometry else None,
                "orientation": "".join(nibabel.aff2axcodes(scan.affine)) if scan.has_geometry else None,
                "modality": str(scan.modality),
                "modality_source": scan.modality_source,
                "is_2d": scan.is_2d,
                "details": scan.details,
            },
            "notes": list(scan.notes),
            "slices": [asdict(score) for score in prediction.slice_scores],
            "candidate_rules": asdict(prediction.rules),
            "lesions": [asdict(lesion) for lesion in prediction.lesions],
            "hidden_lesions": [asdict(lesion) for lesion in prediction.hidden_lesions],
            "timings_s": prediction.timings,
            "versions": {
                "medzsad": __version__,
                "python": platform.python_version(),
                **{library: metadata.version(library) for library in LIBRARIES},
            },
            "disclaimer": "Research use only; not a medical device and not for diagnosis.",
        }
    )


def to_json(document: Any) -> str:
    """Readable JSON, strictly: NaN and infinity are refused."""
    return json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    return value
