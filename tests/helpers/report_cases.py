"""Predictions for the report's tests: a turned, uneven grid with lesions at known voxels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medzsad.results.prediction import ScanPrediction, SliceScore
from medzsad.scans.intensity import intensity_scaling
from medzsad.scans.scan import Modality, Scan
from medzsad.scans.slices import STACK_AXIS, CanonicalView, Plane

SHAPE = (40, 48, 30)
# Native voxel boxes of the two lesions and their value in the map.
LESIONS = (((6, 14), (30, 40), (17, 23), 0.9), ((27, 31), (12, 16), (8, 11), 0.7))


def turned_affine() -> np.ndarray:
    """Axes that run to the left, inferior and posterior, turned by 8 degrees, with an offset."""
    angle = np.deg2rad(8)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    axes = np.array([[-1.0, 0, 0], [0, 0, -1], [0, -1, 0]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ axes @ np.diag([2.0, 1.5, 3.0])
    affine[:3, 3] = (31.0, -17.5, 64.21)
    return affine


def make_volume(shape: tuple[int, int, int] = SHAPE, **fields) -> ScanPrediction:
    """A grey ball with the :data:`LESIONS`, scored in the axial plane; a slice scores its map's maximum."""
    grid = np.indices(shape).reshape(3, -1).T / np.array(shape) - 0.5
    voxels = np.where((grid**2).sum(axis=1) < 0.2, 100.0, 0.0).reshape(shape)
    voxels += np.random.default_rng(0).normal(0, 4, shape) * (voxels > 0)
    anomaly_map = np.where(voxels > 0, 0.1, 0).astype(np.float32)
    for *box, value in LESIONS:
        inside = tuple(slice(*edges) for edges in box)
        anomaly_map[inside], voxels[inside] = value, 160
    facts = {
        "modality": Modality.MR,
        "modality_source": "given",
        "name": "turned",
        "source": Path("turned.nii"),
    }
    scan = Scan(voxels.astype(np.float32), turned_affine(), **(facts | fields))
    view = CanonicalView.of(scan)
    scores = []
    for canonical in range(view.shape[STACK_AXIS[Plane.AXIAL]]):
        axis, index = view.native_index(STACK_AXIS[Plane.AXIAL], canonical)
        score = float(anomaly_map.take(index, axis=axis).max())
        scores.append(SliceScore(Plane.AXIAL, axis, index, 1.5 * canonical, score, score))
    return _prediction(scan, anomaly_map, scores, (Plane.AXIAL,))


def make_picture(**fields) -> ScanPrediction:
    """A colour image of 60 x 44 pixels without geometry and one lesion; its plane is coronal, as of files."""
    pixels = np.random.default_rng(1).integers(60, 120, (60, 44, 1, 3)).astype(np.float32)
    anomaly_map = np.zeros((60, 44, 1), np.float32)
    anomaly_map[40:50, 5:15] = 0.8
    affine = np.array([[-1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
    facts = {
        "modality": Modality.RGB,
        "modality_source": "guessed",
        "name": "photo",
        "source": Path("photo.png"),
    }
    scan = Scan(pixels, affine, is_2d=True, has_geometry=False, **(facts | fields))
    score = SliceScore(Plane.CORONAL, 2, 0, 0.0, 0.8, 0.8)
    return _prediction(scan, anomaly_map, [score], (Plane.CORONAL,))


def _prediction(
    scan: Scan, anomaly_map: np.ndarray, scores: list[SliceScore], planes: tuple[Plane, ...]
) -> ScanPrediction:
    return ScanPrediction(
        scan,
        anomaly_map,
        max(score.score for score in scores),
        scores,
        threshold=0.5,
        threshold_rule="0.5",
        planes=planes,
        scaling=intensity_scaling(scan),
        settings={
            "model": "medzsad-mini",
            "method": "mini",
            "detector": {"image_size": 192},
            "plane": "auto",
        },
        timings={"read_s": 0.1},
    )
