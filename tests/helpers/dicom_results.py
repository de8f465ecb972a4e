"""Predictions of DICOM series without a detector, and what their results are checked with."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from dicom_factory import write, write_series

from medzsad.results.prediction import ScanPrediction, SliceScore
from medzsad.scans.affines import LPS_TO_RAS
from medzsad.scans.intensity import intensity_scaling
from medzsad.scans.readers import read_scan
from medzsad.scans.scan import Scan
from medzsad.scans.slices import Plane

FRAME_OF_REFERENCE = "1.2.826.0.1.3680043.8.498.77"
IDENTITY = {
    "PatientName": "Secret^Patient",
    "PatientID": "SECRET42",
    "PatientBirthDate": "19700102",
    "PatientSex": "F",
    "AccessionNumber": "SECRETACC",
    "StudyID": "7",
    "StudyDate": "20240506",
    "StudyTime": "070809",
    "ReferringPhysicianName": "Secret^Doctor",
}
PLACE = {"FrameOfReferenceUID": FRAME_OF_REFERENCE, "PatientPosition": "HFS", "SeriesNumber": 3}
TAGS = IDENTITY | PLACE | {"BodyPartExamined": "HEAD", "PositionReferenceIndicator": "OM"}
SHAPE = (8, 22, 20)


def pixels(shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    return np.random.default_rng(3).integers(-50, 90, shape, dtype=np.int16)


def regular_series(folder: Path, **tags: Any) -> Path:
    """8 slices of 22 rows and 20 columns, 2.5 mm apart."""
    depths = (2.5 * np.arange(SHAPE[0])).tolist()
    return write_series(folder, pixels(), depths, **(TAGS | {"PixelSpacing": [0.7, 0.9]} | tags))


def tilted_series(folder: Path) -> Path:
    """A gantry tilt of about 20 degrees, and slices of two spacings."""
    depths = np.array([0, 3, 6, 9, 12, 18, 24, 30.0])
    for index, (slice_, depth) in enumerate(zip(pixels(), depths, strict=True)):
        place = {
            "ImagePositionPatient": [-8.0, round(-9.0 + 0.364 * depth, 4), float(depth)],
            "InstanceNumber": index,
        }
        write(folder / f"{index}.dcm", slice_, **(TAGS | {"PixelSpacing": [0.7, 0.9]} | place))
    return folder


def ramp_of(points: np.ndarray) -> np.ndarray:
    """A map that is linear in world coordinates (..., 3) RAS, which linear interpolation reproduces."""
    return 0.5 + points @ np.array([0.0021, 0.0017, 0.0013])


def ramp_on(scan: Scan) -> np.ndarray:
    """:func:`ramp_of` the places of a scan's voxels: (X, Y, Z)."""
    start = ramp_of(scan.affine[:3, 3])
    steps = [ramp_of(scan.affine[:3, axis]) - 0.5 for axis in range(3)]
    i, j, k = np.ogrid[: scan.shape[0], : scan.shape[1], : scan.shape[2]]
    return (start + i * steps[0] + j * steps[1] + k * steps[2]).astype(np.float32)


def predicted(
    scan: Scan | Path, anomaly_map: np.ndarray | None = None, threshold: float = 0.6
) -> ScanPrediction:
    """A prediction with ``anomaly_map``, or with two blobs and a speck above the threshold."""
    scan = scan if isinstance(scan, Scan) else read_scan(scan)
    if anomaly_map is None:
        anomaly_map = 0.5 * np.random.default_rng(1).random(scan.shape)
        x, y, z = scan.shape
        anomaly_map[x // 2 : x // 2 + 5, y // 2 : y // 2 + 6, z // 2 : z // 2 + 3] = 0.9
        anomaly_map[2:5, 2:6, 1:3] = 0.7
        anomaly_map[-2, -2, -2] = 0.65
    return ScanPrediction(
        scan=scan,
        anomaly_map=anomaly_map.astype(np.float32),
        score=0.75,
        slice_scores=[SliceScore(Plane.AXIAL, 2, 0, 0.0, 0.75, 0.5)],
        threshold=threshold,
        threshold_rule=str(threshold),
        planes=(Plane.AXIAL,),
        scaling=intensity_scaling(scan),
        settings={"model": "test", "method": "test", "detector": {}, "plane": "auto"},
    )


def headers(prediction: ScanPrediction) -> list[pydicom.Dataset]:
    """The source's headers, along the stack, read anew."""
    return [pydicom.dcmread(frame.path, stop_before_pixels=True) for frame in prediction.scan.frames]


def pixel_places(header: pydicom.Dataset) -> np.ndarray:
    """RAS mm of every pixel of a slice, from its header alone: (rows, columns, 3)."""
    along_columns, along_rows = np.array(header.ImageOrientationPatient, float).reshape(2, 3)
    between_rows, between_columns = map(float, header.PixelSpacing)
    rows, columns = np.meshgrid(np.arange(header.Rows), np.arange(header.Columns), indexing="ij")
    places = np.array(header.ImagePositionPatient, float) + (
        columns[..., None] * between_columns * along_columns + rows[..., None] * between_rows * along_rows
    )
    return places @ LPS_TO_RAS[:3, :3]


def canonical(array: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A volume with its axes in RAS order, so that volumes stored in different orders compare."""
    image = nibabel.as_closest_canonical(nibabel.Nifti1Image(array, affine))
    return np.asanyarray(image.dataobj), image.affine


def require_volume_reader() -> None:
    """Skips where highdicom writes results, but is too old to read volumes back."""
    if not hasattr(pytest.importorskip("highdicom"), "imread"):
        pytest.skip("this highdicom reads no volumes back")


def of_volume(volume: Any) -> tuple[np.ndarray, np.ndarray]:
    """:func:`canonical` of a highdicom volume (planes, rows, columns; LPS)."""
    return canonical(np.asarray(volume.array), LPS_TO_RAS @ np.asarray(volume.affine))


def new_errors(result: Path, source: Path) -> set[str]:
    """What ``dciodvfy`` finds wrong in a result and not in its source."""
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy is not installed (Debian: dicom3tools)")
    found = []
    for path in (result, source):
        text = subprocess.run(
            ["dciodvfy", str(path)], capture_output=True, text=True, errors="replace"
        ).stderr
        found.append({line for line in text.splitlines() if line.startswith(("Error", "Abort"))})
    return found[0] - found[1]
