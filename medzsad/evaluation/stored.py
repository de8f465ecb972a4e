"""Whole evaluations kept on disk, so that a set that is done is not computed again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medzsad.datasets.samples import SampleSet
from medzsad.errors import OutputNotWritable
from medzsad.evaluation.evaluate import Evaluation, published_beside
from medzsad.evaluation.outcome import ClassOutcome, DetectorOutcome, Figure, Figures
from medzsad.evaluation.prediction_cache import weights_hash
from medzsad.evaluation.settings import EvaluationSettings
from medzsad.results.report import to_json
from medzsad.storage.atomic import replacing

if TYPE_CHECKING:
    from medzsad.detectors.base import AnomalyDetector

VERSION = 1  # raised whenever the same fingerprint would stand for other figures, or the form changes


def describe_detectors(detectors: Sequence[AnomalyDetector]) -> list[dict[str, Any]]:
    """Return what the figures of detectors depend on, JSON-serialisable; reads all their weights."""
    return [
        {
            "name": detector.name,
            "method": detector.method,
            "settings": detector.settings,
            "framing": detector.framing,
            "threshold": detector.threshold,
            "seen": list(detector.seen),
            "weights": weights_hash(detector),
        }
        for detector in detectors
    ]


def fingerprint(
    samples: SampleSet,
    settings: EvaluationSettings,
    detectors: Sequence[dict[str, Any]],
    references: Sequence[str],
) -> str:
    """Return a hash of everything that the figures of an evaluation depend on.

    Args:
        samples: the data set; of its files size and time of change count, not the contents.
        settings: of the evaluation, the rule of the masks decided.
        detectors: from :func:`describe_detectors`.
        references: names of the trivial references.
    """
    from medzsad import __version__

    description = {
        "version": [VERSION, __version__],
        "set": [samples.name, samples.layout, samples.split, samples.level, samples.notes],
        "samples": [_facts(asdict(sample)) for sample in samples],
        "settings": settings.as_dict(),
        "detectors": list(detectors),
        "references": list(references),
    }
    text = json.dumps(description, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def load_evaluation(path: Path, samples: SampleSet) -> Evaluation | None:
    """Return the evaluation of ``samples`` kept in ``path``, with today's published figures; None if none."""
    ids = {name: [sample.id for sample in samples if sample.class_name == name] for name in samples.classes}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Evaluation(
            **{
                **content,
                "detectors": [_detector(one, ids) for one in content["detectors"]],
                "published": published_beside(samples),
                "settings": EvaluationSettings(**content["settings"]),
                "notes": samples.notes,
                "doubt": samples.doubt,
            }
        )
    except (OSError, ValueError, KeyError, TypeError):  # missing, cut short, or of another version
        return None


def keep_evaluation(evaluation: Evaluation, path: Path) -> None:
    """Keep an evaluation in ``path``, without file names; the file appears complete or not at all.

    Raises:
        OutputNotWritable: if it cannot be written.
    """
    content = {**asdict(evaluation), "published": [], "notes": [], "doubt": ""}
    for detector in content["detectors"]:
        for one in detector["classes"]:
            for case in one["cases"]:
                del case["id"]
    text = to_json(content)
    try:
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputNotWritable(
            f"{path.parent}: results cannot be kept there ({error.strerror or error}); make room, set "
            "MEDZSAD_CACHE to another folder, or use `no_cache`"
        ) from error


def _facts(fields: dict[str, Any]) -> dict[str, Any]:
    """Return a sample's fields, with size and time of change in the place of its files."""
    return {
        name: _state(value) if isinstance(value, Path) else value for name, value in sorted(fields.items())
    }


def _state(path: Path) -> list[int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns]


def _detector(fields: dict[str, Any], ids: dict[str, list[str]]) -> DetectorOutcome:
    classes = [
        ClassOutcome(
            **{
                **one,
                "cases": [
                    {"id": name, **case} for name, case in zip(ids[one["name"]], one["cases"], strict=True)
                ],
                "figures": _figures(one["figures"]),
                "curves": {
                    level: {kind: (points[0], points[1]) for kind, points in curves.items()}
                    for level, curves in one["curves"].items()
                },
                "scores": [(score, label) for score, label in one["scores"]],
            }
        )
        for one in fields["classes"]
    ]
    return DetectorOutcome(**{**fields, "classes": classes, "mean": _figures(fields["mean"])})


def _figures(levels: dict[str, dict[str, Any]]) -> Figures:
    return {
        level: {
            metric: Figure(
                fields["value"], _pair(fields["interval"]), _pair(fields["bounds"]), fields["reason"]
            )
            for metric, fields in metrics.items()
        }
        for level, metrics in levels.items()
    }


def _pair(values: Iterable[float] | None) -> tuple[float, float] | None:
    if values is None:
        return None
    low, high = values
    return low, high
