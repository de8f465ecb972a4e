"""The main job: a scan in, its prediction out."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from medzsad.errors import BadInput
from medzsad.inference.first_pass import check_first_pass, first_pass_note, parse_first_pass
from medzsad.inference.slice_step import parse_slice_step
from medzsad.limits import SMALLEST_SIDE, check_batch
from medzsad.results.lesions import CandidateChoice, parse_threshold, resolve_threshold, score_of
from medzsad.results.prediction import ScanPrediction, SliceScore
from medzsad.scans.intensity import window_note
from medzsad.scans.modality import kind_of
from medzsad.scans.prepared import PreparedVolume
from medzsad.scans.readers import read_scan
from medzsad.scans.region import (
    AUTO,
    BRAIN,
    WORDS,
    BrainRegion,
    parse_roi,
    region_of_interest,
)
from medzsad.scans.scan import Modality, Scan
from medzsad.scans.slices import STACK_AXIS, CanonicalView, Plane, planes_to_slice
from medzsad.settings import DetectorSpec, Settings

if TYPE_CHECKING:
    from medzsad.detectors.base import AnomalyDetector
    from medzsad.inference.slicewise import SliceWiseOutput

# The volume score is the mean of this many highest slice scores: one odd slice alone should not decide.
TOP_SLICES = 3


class PredictOptions(Settings):
    """How a scan is predicted, as plain values: for those who hand it on to :func:`predict`.

    Attributes:
        plane, window, threshold, roi, max_candidates, min_volume, all_candidates, volume_rules, slice_step,
            first_pass, batch_size: see :func:`predict`; ``roi`` is a word or a file.
    """

    plane: str = "auto"
    window: str | None = None
    threshold: float | str | None = None
    roi: str | None = None
    max_candidates: int | None = None
    min_volume: float | None = None
    all_candidates: bool = False
    volume_rules: str = "auto"
    slice_step: float | str | None = None
    first_pass: int | None = None
    batch_size: int | None = None

    def options(self) -> dict[str, Any]:
        """Return them as arguments of :func:`predict`."""
        return {each.name: getattr(self, each.name) for each in fields(PredictOptions)}

    def check(self) -> None:
        """Find values that are impossible; what must fit the scan is found when it is predicted.

        Raises:
            BadInput: on one of them.
        """
        from medzsad.detectors.volume_rules import parse_choice

        parse_plane(self.plane)
        parse_roi(self.roi)
        parse_choice(self.volume_rules)
        parse_slice_step(self.slice_step)
        parse_first_pass(self.first_pass)
        CandidateChoice(self.min_volume, self.max_candidates, self.all_candidates)
        check_batch(SMALLEST_SIDE, self.batch_size or 1, f"a batch of {self.batch_size} slices")
        if self.threshold is not None:
            parse_threshold(self.threshold)


def predict(
    scan: Scan | str | os.PathLike[str] | Any,
    detector: AnomalyDetector | DetectorSpec | str = "medzsad-mini",
    *,
    plane: Plane | str = "auto",
    window: str | None = None,
    threshold: float | str | None = None,
    roi: str | os.PathLike[str] | np.ndarray | None = None,
    max_candidates: int | None = None,
    min_volume: float | None = None,
    all_candidates: bool = False,
    volume_rules: str = "auto",
    slice_step: float | str | None = None,
    first_pass: int | None = None,
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
    normals: str | os.PathLike[str] | None = None,
    any_modality: bool = False,
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
        detector: a name or checkpoint for :func:`medzsad.load_detector`, a
            :class:`~medzsad.settings.DetectorSpec`, or a detector (load it once for many scans).
        plane: ``"auto"`` (acquisition plane), ``"axial"``, ``"coronal"``, ``"sagittal"`` or ``"all"`` (the
            mean of the three).
        window: CT window (see :mod:`medzsad.scans.intensity`); by default it is chosen and noted.
        threshold: of the anomaly map: a number in [0, 1], ``"pNN"`` (percentile of the foreground) or
            ``"otsu"``; by default the detector's own.
        roi: region of interest, outside of which the map is 0 and nothing is scored: a mask's file on any
            grid, or an array on the scan's own; ``"brain"``, as the detector sees it; ``"whole"``; or
            ``"auto"``, the default: of volumes the brain, where the detector sees one that can be trusted.
        max_candidates: at most so many lesion candidates are shown; the others are hidden.
        min_volume: in mL; smaller candidates are hidden.
        all_candidates: hide none, not even faint ones.
        volume_rules: ``"on"``, ``"off"`` or ``"auto"``, the detector's own: what is done with maps of
            volumes, see :mod:`medzsad.detectors.volume_rules`.
        slice_step: of volumes: a distance in mm, or ``"auto"``: of thin slices only some are predicted, that
            far apart, and maps between them are interpolated (:mod:`medzsad.inference.slice_step`): faster,
            and small lesions get lost. ``"all"`` predicts all; None leaves it to the detector's rules.
        first_pass: of volumes: a side in pixels at which all slices are predicted first; the third of them
            that scores highest is predicted again at the detector's size
            (:mod:`medzsad.inference.first_pass`): faster, and what is small or faint gets lost.
        series, volume, modality, affine, name: for :func:`medzsad.read_scan`, unless ``scan`` is a
            :class:`Scan`.
        batch_size: slices at once; chosen by default.
        device, precision, organ, class_name, backend, normals, any_modality: for
            :func:`medzsad.load_detector`, when ``detector`` is a name.
        progress: wraps the slice indices, e.g. ``tqdm.tqdm``.

    Raises:
        BadInput: if the scan cannot be read or an option does not fit it.
        ModelNotReady: if the detector cannot be loaded.
    """
    started = time.perf_counter()
    plane = parse_plane(plane)
    rule = None if threshold is None else parse_threshold(threshold)
    step_mm, small_side = parse_slice_step(slice_step), parse_first_pass(first_pass)
    choice, roi = CandidateChoice(min_volume, max_candidates, all_candidates), parse_roi(roi)
    check_batch(SMALLEST_SIDE, batch_size or 1, f"a batch of {batch_size} slices")
    if not isinstance(scan, Scan):
        scan = read_scan(scan, series=series, volume=volume, modality=modality, affine=affine, name=name)
    read = time.perf_counter()

    from medzsad.detectors.normal_scores import context_of
    from medzsad.detectors.volume_rules import NO_RULES, rules_for
    from medzsad.inference.planes import brain_of, detect_slices, follow_scan, mean_map, threshold_of
    from medzsad.zoo.loading import load_spec

    if isinstance(detector, str):
        detector = DetectorSpec(
            detector,
            device,
            precision,
            organ=organ,
            class_name=class_name,
            backend=backend,
            normals=None if normals is None else os.fspath(normals),
            any_modality=any_modality,
        )
    if isinstance(detector, DetectorSpec):
        detector = load_spec(detector)
    detector.check_scan(scan)
    if not scan.is_2d:
        detector = detector.for_volume(colour=scan.is_colour)
    if scan.modality is not Modality.RGB or scan.modality_source != "guessed":
        detector = detector.for_modality(scan.modality)
    if detector.tells_colours or detector.neighbour_mm is not None:
        scan = scan.with_notes(window_note(window))
    rules = NO_RULES if scan.is_2d else rules_for(detector, volume_rules)
    if step_mm is not None and not scan.is_2d:
        rules = replace(rules, apart_mm=step_mm)
    if scan.is_2d:
        small_side = 0
    elif small_side:
        check_first_pass(detector, small_side)
    candidate_rules = choice.rules(rules, has_geometry=scan.has_geometry, own_threshold=rule is None)
    given = _given_region(roi, scan, detector)
    loaded = time.perf_counter()

    prepared = PreparedVolume.of(scan, plane=plane, window=window)
    region = None if given is None else _inside(given, prepared)
    outputs = detect_slices(
        prepared,
        detector,
        rules,
        region,
        batch_size=batch_size,
        progress=progress,
        first_pass=small_side,
    )
    if small_side:
        scan = scan.with_notes(first_pass_note(small_side, detector, outputs))
    brain = brain_of(outputs, prepared) if detector.marks_brain else None
    if brain is not None and _is_region(brain, roi, scan):
        region = brain.mask
        scan = scan.with_notes(
            f"region of interest: the brain ({brain.volume_ml:.0f} mL) and what borders on it"
        )
    if rules.guide_mm and not scan.is_colour:
        follow_scan(outputs, prepared, region, rules.guide_mm)
    if region is not None:
        outputs = [output.within(region) for output in outputs]
    anomaly_map = mean_map([output.anomaly_map for output in outputs])
    inferred = time.perf_counter()

    rule = parse_threshold(threshold_of(detector, outputs)) if rule is None else rule
    prediction = ScanPrediction(
        scan=scan,
        anomaly_map=np.ascontiguousarray(prepared.view.to_native(anomaly_map)),
        score=float(np.mean([_volume_score(output.scores) for output in outputs])),
        slice_scores=[score for output in outputs for score in _slice_scores(scan, prepared.view, output)],
        threshold=resolve_threshold(rule, anomaly_map[prepared.foreground if region is None else region]),
        threshold_rule=str(rule),
        planes=prepared.planes,
        scaling=prepared.scaling,
        settings={
            "model": detector.name,
            "method": detector.method,
            "detector": detector.settings,
            **({"shown_as": kind_of(scan)} if detector.tells_colours else {}),
            "plane": str(plane),
            "roi": "whole" if region is None else "brain" if given is None else "mask",
            **({} if scan.is_2d else {"volume_rules": asdict(rules)}),
            **({"first_pass": small_side} if small_side else {}),
        },
        timings={
            "read_s": round(read - started, 3),
            "load_detector_s": round(loaded - read, 3),
            "inference_s": round(inferred - loaded, 3),
        },
        rules=candidate_rules,
        brain=None if brain is None else np.ascontiguousarray(prepared.view.to_native(brain.mask)),
        prepared_box=prepared.box,
    )
    if rules.score_from_candidates:
        prediction.score = score_of_candidates(prediction)
    as_measured = (
        prediction.settings["roi"] == BRAIN
        and rules == detector.volume_rules
        and prepared.planes == planes_to_slice(Plane.AUTO, prepared.view)
        and window is threshold is min_volume is None
        and not small_side
    )
    if as_measured:
        prediction.score_context = context_of(prediction.score, scan.modality, detector.normal_scores, rules)
    return prediction


def _given_region(
    roi: str | os.PathLike[str] | np.ndarray, scan: Scan, detector: AnomalyDetector
) -> np.ndarray | None:
    """Return the mask that the caller gave, bool (X, Y, Z) on the scan's grid; None where a word was given.

    Raises:
        BadInput: if it cannot be read, or the brain is asked for and the detector does not mark one.
    """
    if not isinstance(roi, str) or roi not in WORDS:
        return region_of_interest(roi, scan)
    if roi == BRAIN and not detector.marks_brain:
        raise BadInput(
            f"{detector.name} does not mark the brain of {scan.name}: that takes a network for slices of "
            "grey volumes; give a mask as region of interest"
        )
    return None


def _inside(region: np.ndarray, prepared: PreparedVolume) -> np.ndarray:
    """Return what a region, bool (X, Y, Z) on the scan's own grid, holds of the foreground; canonical."""
    inside = prepared.view.to_canonical(region) & prepared.foreground
    if not inside.any():
        raise BadInput(
            f"the region of interest holds nothing of what {prepared.scan.name} shows, only air; check it."
        )
    return inside


def _is_region(brain: BrainRegion, roi: str | os.PathLike[str] | np.ndarray, scan: Scan) -> bool:
    """Whether the brain is the region of interest: it is asked for, or not ruled out, and can be trusted.

    Raises:
        BadInput: it is asked for, and is not to be trusted.
    """
    if not isinstance(roi, str) or roi not in (AUTO, BRAIN):
        return False
    if roi == BRAIN and brain.doubt:
        raise BadInput(f"the brain of {scan.name} is not to be trusted ({brain.doubt}); give a mask.")
    return not brain.doubt


def score_of_candidates(prediction: ScanPrediction) -> float:
    """Return the volume score of a prediction's candidates: that of the first.

    Where there is none, the same of the map's highest values, which are below the threshold.
    """
    if prediction.lesions:
        return prediction.lesions[0].score
    values = prediction.anomaly_map[prediction.anomaly_map > 0]
    return score_of(values, abs(float(np.linalg.det(prediction.affine[:3, :3]))))


def _volume_score(scores: list[float]) -> float:
    return float(np.mean(sorted(scores)[-TOP_SLICES:])) if scores else 0.0


def _slice_scores(scan: Scan, view: CanonicalView, output: SliceWiseOutput) -> list[SliceScore]:
    canonical_axis = STACK_AXIS[output.plane]
    center = (np.array(scan.shape, dtype=float) - 1) / 2
    scores = []
    for index, score, probability in zip(output.indices, output.scores, output.probabilities, strict=True):
        axis, native = view.native_index(canonical_axis, index)
        voxel = center.copy()
        voxel[axis] = native
        position = float(scan.affine[canonical_axis, :3] @ voxel + scan.affine[canonical_axis, 3])
        scores.append(SliceScore(output.plane, axis, native, position, float(score), float(probability)))
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
