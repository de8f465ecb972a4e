"""The main job: a scan in, its prediction out."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from medzsad.errors import BadInput
from medzsad.limits import SMALLEST_SIDE, check_batch
from medzsad.results.prediction import ScanPrediction, SliceScore
from medzsad.results.thresholds import parse_threshold, resolve_threshold
from medzsad.scans.intensity import foreground_mask, intensity_scaling
from medzsad.scans.readers import read_scan
from medzsad.scans.scan import Modality, Scan
from medzsad.scans.showing import as_shown, kind_of, window_note
from medzsad.scans.slices import STACK_AXIS, CanonicalView, Plane, planes_to_slice

if TYPE_CHECKING:
    from medzsad.detectors.base import AnomalyDetector
    from medzsad.inference.slicewise import SliceWiseOutput

# The volume score is the mean of this many highest slice scores: one odd slice alone should not decide.
TOP_SLICES = 3


def predict(
    scan: Scan | str | os.PathLike[str] | Any,
    detector: AnomalyDetector | str = "medzsad-mini",
    *,
    plane: Plane | str = "auto",
    window: str | None = None,
    threshold: float | str | None = None,
    series: str | None = None,
    volume: int | None = None,
    modality: Modality | str | None = None,
    affine: Any = None,
    name: str | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    precision: str = "auto",
    organ: str | None = None,
    class_name: str | None = None,
    backend: str = "torch",
    progress: Callable[..., Any] | None = None,
) -> ScanPrediction:
    """Predict one scan.

    >>> result = predict("scan.nii.gz")                # doctest: +SKIP
    >>> result = predict(voxels, affine=affine)        # doctest: +SKIP
    >>> result.score, result.lesions[0].center_mm      # doctest: +SKIP

    Args:
        scan: a NIfTI, NRRD, MetaImage or MGZ file, a DICOM file or series folder, a PNG, JPEG or TIFF image,
            a :class:`Scan`, or what else :func:`medzsad.read_scan` takes: a NumPy array with ``affine``, a
            MONAI ``MetaTensor``, a nibabel or a SimpleITK image.
        detector: a name or checkpoint for :func:`medzsad.load_detector`, or a detector (load it once for
            many scans).
        plane: ``"auto"`` (acquisition plane), ``"axial"``, ``"coronal"``, ``"sagittal"`` or ``"all"`` (the
            mean of the three).
        window: CT window (see :mod:`medzsad.scans.intensity`); by default it is chosen and noted.
        threshold: of the anomaly map: a number in [0, 1], ``"pNN"`` (percentile of the foreground) or
            ``"otsu"``; by default the detector's own.
        series, volume, modality, affine, name: for :func:`medzsad.read_scan`, unless ``scan`` is a
            :class:`Scan`.
        batch_size: slices at once; chosen by default.
        device, precision, organ, class_name, backend: for :func:`medzsad.load_detector`, when ``detector``
            is a name.
        progress: wraps the slice indices, e.g. ``tqdm.tqdm``.

    Raises:
        BadInput: if the scan cannot be read or an option does not fit it.
        ModelNotReady: if the detector cannot be loaded.
    """
    started = time.perf_counter()
    plane = parse_plane(plane)
    rule = None if threshold is None else parse_threshold(threshold)
    check_batch(SMALLEST_SIDE, batch_size or 1, f"a batch of {batch_size} slices")
    if not isinstance(scan, Scan):
        scan = read_scan(scan, series=series, volume=volume, modality=modality, affine=affine, name=name)
    read = time.perf_counter()

    from medzsad.zoo.loading import load_detector

    if isinstance(detector, str):
        detector = load_detector(
            detector,
            device=device,
            precision=precision,
            organ=organ,
            class_name=class_name,
            backend=backend,
        )
    if not scan.is_2d:
        detector = detector.for_volume(colour=scan.is_colour)
    note = window_note(window) if detector.tells_colours or detector.neighbour_mm is not None else None
    if note is not None:
        scan = replace(scan, notes=(*scan.notes, note))
    loaded = time.perf_counter()

    view = CanonicalView.of(scan)
    planes = planes_to_slice(plane, view)
    # From here to the map all is done in canonical axes, so that storage order cannot change a result.
    canonical = replace(scan, voxels=view.to_canonical(scan.voxels), affine=np.diag([*view.spacing, 1.0]))
    foreground = foreground_mask(canonical)
    scaling = intensity_scaling(canonical, window=window, foreground=foreground)
    shown = as_shown(scan, scaling) if detector.tells_colours else scaling
    outputs = _run_planes(canonical, detector, planes, foreground, shown, batch_size, progress)
    anomaly_map = _mean([output.anomaly_map for output in outputs])
    inferred = time.perf_counter()

    rule = parse_threshold(detector.threshold) if rule is None else rule
    slice_scores = [
        score
        for plane_, output in zip(planes, outputs, strict=True)
        for score in _slice_scores(scan, view, plane_, output)
    ]
    return ScanPrediction(
        scan=scan,
        anomaly_map=np.ascontiguousarray(view.to_native(anomaly_map)),
        score=float(np.mean([_volume_score(output.scores) for output in outputs])),
        slice_scores=slice_scores,
        threshold=resolve_threshold(rule, anomaly_map[foreground]),
        threshold_rule=str(rule),
        planes=planes,
        scaling=scaling,
        settings={
            "model": detector.name,
            "method": detector.method,
            "detector": detector.settings,
            **({"shown_as": kind_of(scan)} if detector.tells_colours else {}),
            "plane": str(plane),
        },
        timings={
            "read_s": round(read - started, 3),
            "load_detector_s": round(loaded - read, 3),
            "inference_s": round(inferred - loaded, 3),
        },
    )


def _run_planes(
    scan: Scan,
    detector: AnomalyDetector,
    planes: tuple[Plane, ...],
    foreground: np.ndarray,
    prepare: Callable[[np.ndarray], np.ndarray],
    batch_size: int | None,
    progress: Callable[..., Any] | None,
) -> list[SliceWiseOutput]:
    from medzsad.inference.slicewise import SliceWisePredictor

    outputs = []
    for plane in planes:
        inferer = SliceWisePredictor(
            plane, scan.spacing, prepare=prepare, batch_size=batch_size, progress=progress
        )
        outputs.append(inferer(scan.voxels, detector, foreground))
    return outputs


def _mean(maps: list[np.ndarray]) -> np.ndarray:
    total = maps[0]
    for other in maps[1:]:
        total += other
    if len(maps) > 1:
        total /= len(maps)
    return total


def _volume_score(scores: list[float]) -> float:
    return float(np.mean(sorted(scores)[-TOP_SLICES:])) if scores else 0.0


def _slice_scores(scan: Scan, view: CanonicalView, plane: Plane, output: SliceWiseOutput) -> list[SliceScore]:
    canonical_axis = STACK_AXIS[plane]
    center = (np.array(scan.shape, dtype=float) - 1) / 2
    scores = []
    for index, score, probability in zip(output.indices, output.scores, output.probabilities, strict=True):
        axis, native = view.native_index(canonical_axis, index)
        voxel = center.copy()
        voxel[axis] = native
        position = float(scan.affine[canonical_axis, :3] @ voxel + scan.affine[canonical_axis, 3])
        scores.append(SliceScore(plane, axis, native, position, float(score), float(probability)))
    return sorted(scores, key=lambda score: score.index)


def parse_plane(plane: Plane | str) -> Plane:
    """``plane`` as a :class:`Plane`.

    Raises:
        BadInput: if there is no such plane.
    """
    try:
        return Plane(plane)
    except ValueError as error:
        raise BadInput(f"unknown plane {plane!r}; use one of {', '.join(Plane)}") from error
