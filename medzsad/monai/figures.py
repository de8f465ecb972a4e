"""Our metrics in MONAI's engines."""

from __future__ import annotations

from typing import Any

import torch
from monai.handlers import IgniteMetricHandler

from medzsad.detectors.base import AnomalyDetector
from medzsad.errors import certain
from medzsad.results.thresholds import parse_threshold


class FiguresHandler(IgniteMetricHandler):
    """Puts all figures of a metric of :mod:`medzsad.metrics` into the engine's metrics, each by its name.

    The handler's own name must be one of them: ``key_val_metric: {case_ap: FiguresHandler(...)}``.
    """

    def compute(self) -> float:
        """Return the figure that the handler is named after."""
        figures = super().compute()
        certain(self._engine).state.metrics.update(figures)
        return figures[self._name]


def scores_and_labels(output: list[dict[str, Any]]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Return, of an evaluator's output, each scan's score (1,), and whether anything is labelled (1,)."""
    scores = [torch.tensor([one["pred"].meta["score"]], dtype=torch.float64) for one in output]
    return scores, [one["label"].any().reshape(1).as_subclass(torch.Tensor) for one in output]


def fixed_threshold(threshold: float | str | None, detector: AnomalyDetector) -> float | None:
    """Return the threshold of the map, by default the detector's own; None if it differs between scans."""
    rule = parse_threshold(detector.threshold if threshold is None else threshold)
    return rule if isinstance(rule, float) else None
