"""What is sent back for a scan: a label file with the scan's geometry, and figures as JSON."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from medzsad.integrations.monailabel.model_list import OfferedModel
from medzsad.integrations.monailabel.parameters import InferParameters
from medzsad.results.nifti import write_volume
from medzsad.results.prediction import ScanPrediction
from medzsad.results.report import report
from medzsad.results.segmentation_nrrd import COLOUR, write_segmentation

LABELS = {"anomaly": 1}


def write_label(prediction: ScanPrediction, parameters: InferParameters) -> Path:
    """Write the mask (0, and 1 where it is suspicious) to a temporary file, which the server deletes.

    ``.nii`` and ``.nii.gz`` hold what ``medzsad predict`` writes, header included; ``.seg.nrrd`` is its
    segmentation for 3D Slicer; the other formats are written by ITK, 2D images without geometry.
    """
    scan = prediction.scan
    extension = parameters.extension or (".png" if scan.is_2d else ".nii.gz")
    handle, name = tempfile.mkstemp(prefix="medzsad-label-", suffix=extension)
    os.close(handle)
    path = Path(name)
    try:
        mask = prediction.mask.astype(np.dtype(parameters.dtype))
        if extension == ".seg.nrrd":
            write_segmentation(prediction, path)
        elif extension in (".nii", ".nii.gz"):
            write_volume(mask, scan, path, what="mask", fingerprint=prediction.fingerprint)
        else:
            _write_with_itk(mask, prediction, path, parameters.compress)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return path


def figures(prediction: ScanPrediction, model: OfferedModel) -> dict[str, Any]:
    """Return what the client is told besides the label, JSON-serialisable: scores, candidates, settings."""
    facts = report(prediction)
    kept = ("score", "threshold", "planes", "intensity", "settings", "notes", "disclaimer")
    return {
        "model": model.name,
        "model_version": model.version,
        "medzsad_version": facts["versions"]["medzsad"],
        "label_names": LABELS,
        "label_colors": {"anomaly": list(COLOUR)},
        "modality": facts["scan"]["modality"],
        **{key: facts[key] for key in kept},
        "uncertainty": round(uncertainty(prediction), 6),
        "slice_scores": facts["slices"],
        "lesions": [_lesion(lesion, prediction.scan.has_geometry) for lesion in facts["lesions"]],
        "latencies": facts["timings_s"],
    }


def uncertainty(prediction: ScanPrediction, *, span: float = 0.2) -> float:
    """How much the label depends on the threshold, in [0, 1].

    One less the Dice overlap of the masks at ``1 - span`` and ``1 + span`` times the threshold: 0 where both
    are the same, or empty; 1 where something is suspicious at the lower one and nothing at the higher one.
    """
    values, threshold = prediction.anomaly_map, prediction.threshold
    low = int(np.count_nonzero((values >= (1 - span) * threshold) & (values > 0)))
    high = int(np.count_nonzero((values >= min(1.0, (1 + span) * threshold)) & (values > 0)))
    return 0.0 if not low else 1.0 - 2.0 * high / (low + high)  # the higher mask lies within the lower one


def _lesion(lesion: dict[str, Any], has_geometry: bool) -> dict[str, Any]:
    """Return a candidate of the report, with its place along 3D Slicer's axes.

    RAS) and along DICOM's (LPS.
    """
    return {
        "score": lesion["score"],
        "mean": lesion["mean"],
        "maximum": lesion["maximum"],
        **_place("center", lesion, has_geometry),
        **_place("peak", lesion, has_geometry),
        "bounding_box": lesion["bounding_box"],
        "voxels": lesion["voxels"],
        "volume_ml": lesion["volume_ml"],
    }


def _place(kind: str, lesion: dict[str, Any], has_geometry: bool) -> dict[str, Any]:
    """Return a candidate's centre of mass (``"center"``) or highest value (``"peak"``)."""
    x, y, z = lesion[f"{kind}_mm"]
    return {
        f"{kind}_ras_mm": [x, y, z] if has_geometry else None,
        f"{kind}_lps_mm": [-x, -y, z] if has_geometry else None,
        f"{kind}_voxel": lesion[f"{kind}_voxel"],
    }


def _write_with_itk(mask: np.ndarray, prediction: ScanPrediction, path: Path, compress: bool) -> None:
    from monailabel.transform.writer import write_itk

    if prediction.scan.is_2d:
        write_itk(mask[:, :, 0], str(path), None, None, compress)
    else:
        write_itk(mask, str(path), prediction.affine, None, compress)
