"""One detector on a set of volumes, as ``medzsad predict`` runs it on them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from medzsad.datasets.catalog import by_class
from medzsad.datasets.samples import SampleSet, VolumeSample
from medzsad.errors import BadInput
from medzsad.evaluation.cache import PredictionCache, StoredPrediction
from medzsad.evaluation.outcome import ClassOutcome, Figure
from medzsad.evaluation.pooling import PixelPool, figure_of, image_level
from medzsad.evaluation.settings import EvaluationSettings
from medzsad.metrics.bootstrap import Draws, Intervals, intervals_of, mean_intervals
from medzsad.metrics.lesionwise import (
    CaseFindings,
    LesionRule,
    find_lesions,
    froc_curve,
    lesion_metrics,
    match_candidates,
)
from medzsad.metrics.masks import match
from medzsad.metrics.undefined import Undefined, UndefinedMetric
from medzsad.metrics.volume import case_metrics, cut_off, mean_over_cases, within
from medzsad.predicting import predict
from medzsad.results.lesions import CandidateChoice, CandidateRules
from medzsad.results.lesions import find_lesions as find_candidates

if TYPE_CHECKING:
    from medzsad.detectors.base import AnomalyDetector
    from medzsad.scans.scan import Scan

CASE_METRICS = ("auroc", "ap", "dice_best", "dice")

Keep = Callable[[VolumeSample, "Scan", np.ndarray, np.ndarray], None]


def evaluate_volumes(
    detector: AnomalyDetector,
    samples: SampleSet,
    settings: EvaluationSettings,
    *,
    threshold: float,
    cache: PredictionCache,
    keep: Keep | None = None,
    progress: Callable[..., Iterable[Any]] | None = None,
) -> tuple[list[ClassOutcome], str]:
    """Evaluate a detector on volumes, class by class; one volume is in memory at a time, and its map.

    Args:
        detector: the detector; its texts speak of each class in turn.
        samples: volumes.
        settings: the evaluation's.
        threshold: of the map, for Dice and lesions.
        cache: of predictions.
        keep: gets each sample, its scan, its map and its label, to store or draw them.
        progress: wraps the samples, e.g. ``tqdm``; gets ``total``.

    Returns:
        The outcome of each class, in order, and ``"exact"`` or ``"histogram"`` for the pooled figures.

    Raises:
        BadInput: if a volume cannot be read, or its label is not on its grid.
    """
    outcomes, modes = [], set()
    steps = iter(progress(samples, total=len(samples)) if progress else samples)
    told = by_class(detector, samples.name, samples.layout, samples.classes, class_name=settings.class_name)
    for name in samples.classes:
        members = [sample for sample in samples.volumes if sample.class_name == name]
        draws, own = settings.draws(len(members)), cache.of(told[name])
        pool = PixelPool(settings, threshold, unit="voxel", regions=False, draws=draws)
        candidate_rules = CandidateChoice().rules(
            told[name].for_volume().volume_rules, has_geometry=True, own_threshold=settings.threshold is None
        )
        rule = LesionRule(
            threshold, 1000 * settings.minimum_lesion_ml, settings.minimum_lesion_iou, overlap="iou"
        )
        cases: list[dict[str, Any]] = []
        findings: list[CaseFindings] = []
        for sample in members:
            next(steps, None)
            scan = sample.read_scan()
            if settings.minimum_lesion_ml and not scan.has_geometry:
                raise BadInput(
                    f"{sample.image} has no known voxel size, so lesions have no volume in mL; correct its "
                    "header, or leave `minimum_lesion_ml` out."
                )
            prediction = volume_prediction(told[name], sample, scan, own)
            label = sample.read_label()
            area = sample.read_foreground() if settings.foreground_only else None
            pool.add(*within(prediction.anomaly_map, label, area))
            cut = cut_off(prediction.anomaly_map, label, area)
            findings.append(findings_of(cut, label, scan, rule, threshold, candidate_rules))
            figures = case_metrics(prediction.anomaly_map, label, threshold=threshold, foreground=area)
            cases.append(
                {
                    "id": sample.id,
                    "label": int(label.any()),
                    "score": prediction.score,
                    "probability": prediction.probability,
                    **{key: None if isinstance(v, Undefined) else float(v) for key, v in figures.items()},
                    "lesions": len(findings[-1].lesion_scores),
                    "lesions_found": int(np.isfinite(findings[-1].lesion_scores).sum()),
                    "false_positives": len(findings[-1].false_positive_scores),
                    "undefined": {k: v.reason for k, v in figures.items() if isinstance(v, Undefined)},
                }
            )
            if keep is not None:
                keep(sample, scan, prediction.anomaly_map, label)
        # Undefined where all volumes have something anomalous.
        outcome = image_level(name, cases, draws, class_name=told[name].class_name)
        outcome.figures["case"] = _case_level(cases, draws)
        outcome.figures["voxel"], outcome.curves["voxel"] = pool.finish()
        outcome.figures["lesion"] = _lesion_level(findings, draws)
        try:
            curve = froc_curve(findings)
            outcome.curves["lesion"] = {"froc": (curve.false_positives.tolist(), curve.sensitivity.tolist())}
        except UndefinedMetric:
            pass
        modes.add(pool.mode)
        outcomes.append(outcome)
    for _ in steps:
        pass
    return outcomes, "histogram" if "histogram" in modes else "exact"


def volume_prediction(
    detector: AnomalyDetector, sample: VolumeSample, scan: Scan, cache: PredictionCache
) -> StoredPrediction:
    """Return what a detector says of a volume, from the cache or computed and kept there."""

    def compute() -> StoredPrediction:
        result = predict(scan, detector)
        best = max((s.probability for s in result.slice_scores), default=0.0)
        return StoredPrediction(result.anomaly_map, result.score, best)

    return cache.fetch(sample.image, compute, part=f"-{sample.volume}")


def findings_of(
    anomaly_map: np.ndarray,
    label: np.ndarray,
    scan: Scan,
    rule: LesionRule,
    threshold: float,
    rules: CandidateRules,
) -> CaseFindings:
    """Match the candidates that ``medzsad predict`` lists of a map, and its specks, with the lesions.

    Args:
        anomaly_map: float (X, Y, Z).
        label: ground truth.
        scan: what it is of.
        rule: when a lesion is found.
        threshold: of the map.
        rules: which candidates are listed; the default ones list all components.
    """
    if rules == CandidateRules():
        return find_lesions(anomaly_map, label, rule, spacing=scan.spacing)
    scores, truth = match(anomaly_map, label)
    listed = find_candidates(scores, (scores >= threshold) & (scores > 0), scan.affine, rules=rules).labels
    return match_candidates(listed, scores, truth, rule, spacing=scan.spacing)


def _case_level(cases: list[dict[str, Any]], draws: Draws | None) -> dict[str, Figure]:
    columns = {
        key: [Undefined(case["undefined"][key]) if case[key] is None else case[key] for case in cases]
        for key in CASE_METRICS
    }
    numbers = {key: [float(value) for value in column] for key, column in columns.items()}
    intervals: Intervals = mean_intervals(numbers, draws) if draws else {}
    return {key: figure_of(mean_over_cases(column), intervals.get(key)) for key, column in columns.items()}


def _lesion_level(findings: list[CaseFindings], draws: Draws | None) -> dict[str, Figure]:
    intervals: Intervals = intervals_of(findings, lesion_metrics, draws) if draws else {}
    return {key: figure_of(v, intervals.get(key)) for key, v in lesion_metrics(findings).items()}
