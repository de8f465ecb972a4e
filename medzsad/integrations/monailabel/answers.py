"""What is sent back for a scan: a label file, figures as JSON, or one line that says why there is none."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import HTTPException

from medzsad.errors import MedzsadError, ModelNotReady
from medzsad.integrations.monailabel.detector_pool import DetectorPool
from medzsad.integrations.monailabel.models import OfferedModel
from medzsad.integrations.monailabel.parameters import InferParameters
from medzsad.results.map_files import write_segmentation, write_volume
from medzsad.results.montage import OUTLINE
from medzsad.results.prediction import ScanPrediction
from medzsad.results.report import report

LABELS = {"anomaly": 1}


def write_label(prediction: ScanPrediction, parameters: InferParameters) -> Path:
    """Write the mask (0, and 1 where it is suspicious) to a temporary file, which the server deletes.

    ``.nii`` and ``.nii.gz`` hold what ``medzsad predict`` writes, header included; ``.seg.nrrd`` is its
    segmentation for 3D Slicer; the other formats are written by ITK, 2D images without geometry.
    """
    scan = prediction.scan
    extension = parameters.extension or (".png" if scan.is_2d else ".nii.gz")
    with _temporary("medzsad-label-", extension) as path:
        mask = prediction.mask.astype(np.dtype(parameters.dtype))
        if extension == ".seg.nrrd":
            write_segmentation(prediction, path)
        elif extension in (".nii", ".nii.gz"):
            write_volume(mask, scan, path, what="mask", fingerprint=prediction.fingerprint)
        else:
            _write_with_itk(mask, prediction, path, parameters.compress)
    return path


@contextlib.contextmanager
def _temporary(prefix: str, suffix: str) -> Iterator[Path]:
    """Make a temporary file, which stays unless the block fails."""
    handle, name = tempfile.mkstemp(prefix=prefix, suffix=suffix)
    os.close(handle)
    try:
        yield Path(name)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def figures(prediction: ScanPrediction, model: OfferedModel) -> dict[str, Any]:
    """Return what the client is told besides the label, JSON-serialisable: scores, candidates, settings."""
    facts = report(prediction)
    kept = ("score", "threshold", "planes", "intensity", "settings", "notes", "disclaimer")
    return {
        "model": model.name,
        "model_version": model.version,
        "medzsad_version": facts["versions"]["medzsad"],
        "label_names": LABELS,
        "label_colors": {"anomaly": list(OUTLINE)},
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


def write_dicom_seg(
    pool: DetectorPool, model: OfferedModel, series: Path, parameters: InferParameters
) -> Path:
    """Predicts a series, and writes what ``medzsad predict --dicom seg`` does to a temporary file.

    Not MONAI Label's conversion of the NIfTI label: that one knows a series of even spacing at right angles
    alone, and puts the label of one with gantry tilt in a wrong place; and it has no empty segmentations.

    Args:
        pool: the detectors.
        model: what to predict with.
        series: folder of the series' files.
        parameters: ``extension``, ``dtype`` and ``compress`` mean nothing here.

    Returns:
        The file. It holds the patient's identity, as the series does: delete it.

    Raises:
        BadInput: if the series cannot be read, results cannot refer to it, or a parameter does not fit it.
        ModelNotReady: if the model cannot be loaded.
    """
    prediction = pool.predict(model, series, parameters)
    with (
        tempfile.TemporaryDirectory(prefix="medzsad-") as folder,
        _temporary("medzsad-seg-", ".dcm") as path,
    ):
        return prediction.save(Path(folder), formats=("dicom-seg",))["dicom-seg"].replace(path)


NOT_FOUND, UNUSABLE, UNREACHABLE, UNAVAILABLE = 404, 422, 502, 503


def refusal(error: MedzsadError | str, *, path: str | Path | None = None, shown: str = "") -> HTTPException:
    """Return the answer to a request that cannot be served.

    Args:
        error: why; a model that is not ready is the server's fault (503), all else the request's (422).
        path: a file of the server that the reason may name, ...
        shown: ... and what the client knows it as: folders of the server are nobody's business.
    """
    status = UNAVAILABLE if isinstance(error, ModelNotReady) else UNUSABLE
    reason = " ".join(str(error).split())
    if path is not None:
        reason = reason.replace(str(path), shown or "the image")
    return HTTPException(status, reason.replace("`", ""))


def not_found(reason: str) -> HTTPException:
    """Return the answer to a request for something that does not exist."""
    return HTTPException(NOT_FOUND, reason)


def unreachable(reason: str) -> HTTPException:
    """Return the answer to a request that another server would be needed for."""
    return HTTPException(UNREACHABLE, reason)


@contextlib.contextmanager
def refusing(path: str | Path | None = None, shown: str = "") -> Iterator[None]:
    """Turn errors of ours into refusals; see :func:`refusal`."""
    try:
        yield
    except MedzsadError as error:
        raise refusal(error, path=path, shown=shown) from None
