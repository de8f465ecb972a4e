"""Pixel metrics of sets that do not fit into memory: counts in bins, with bounds for every result."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from medzsad.metrics import bounds, formulas
from medzsad.metrics.bounds import Bounded
from medzsad.metrics.masks import match, pair_up, region_weights
from medzsad.metrics.pixel import count_at
from medzsad.metrics.ranking import require_both
from medzsad.metrics.undefined import Undefined, UndefinedMetric


class ScoreHistogram:
    """Counts of anomalous and normal pixels (or voxels) by score, in equal bins.

    Takes 33 bytes a bin, whatever the number of images. Histograms of parts of a set add up to that of the
    whole, exactly, so parts may be computed anywhere and in any order (region weights, which are not whole
    numbers, up to rounding).

    >>> import numpy as np
    >>> first, second = ScoreHistogram(), ScoreHistogram()
    >>> first.add(np.array([[0.1, 0.8]]), np.array([[0, 1]]))
    >>> second.add(np.array([[0.3, 0.2]]), np.array([[0, 1]]))
    >>> float((first + second).metrics()["pixel_auroc"])
    0.75

    Args:
        bins: number of bins.
        limits: lowest and highest score there can be. Narrow limits make narrow bounds.
        threshold: count also for Dice at this threshold, which is then exact.
        regions: find regions (for AUPRO).
        unit: "pixel" or "voxel": the first part of the results' names.

    Raises:
        ValueError: for settings that make no sense.
    """

    def __init__(
        self,
        bins: int = 65_536,
        *,
        limits: tuple[float, float] = (0.0, 1.0),
        threshold: float | None = None,
        regions: bool = True,
        unit: str = "pixel",
    ) -> None:
        low, high = (float(limit) for limit in limits)
        if bins < 1 or not -np.inf < low < high < np.inf:
            raise ValueError(f"need at least one bin and finite rising limits, got {bins} and {limits}")
        self.limits = (low, high)
        self.threshold = None if threshold is None else float(threshold)
        self.has_regions = regions
        self.unit = unit
        self.positives = np.zeros(bins, np.int64)
        self.negatives = np.zeros(bins, np.int64)
        self.weight = np.zeros(bins, np.float64)
        # The first score seen in each bin, NaN before, and whether a bin has seen another: bins of one score
        # are exact, such as those of maps that were stored with 8 or 16 bits.
        self.first = np.full(bins, np.nan)
        self.mixed = np.zeros(bins, bool)
        self.regions = self.images = self.anomalous_images = 0
        self.called = np.zeros(2, np.int64)

    def add(self, anomaly_map: Any, mask: Any) -> None:
        """Count one image or volume.

        Args:
            anomaly_map: float (H, W) or (D, H, W), within the limits.
            mask: its ground truth, None for nothing anomalous; see :func:`medzsad.metrics.masks.pair_up`.

        Raises:
            ValueError: if they do not fit together, or a score is NaN or outside the limits.
        """
        scores, truth = match(anomaly_map, mask)
        if not scores.size:
            return
        index = self._bins_of(scores)
        self._note_ties(index.reshape(-1), scores.reshape(-1))
        inside = index[truth]
        found = np.bincount(inside, minlength=self.positives.size)
        self.positives += found
        self.negatives += np.bincount(index.reshape(-1), minlength=self.positives.size) - found
        if inside.size and self.has_regions:
            weights, count = region_weights(truth)
            self.weight += np.bincount(inside, weights, minlength=self.positives.size)
            self.regions += count
        self.images += 1
        self.anomalous_images += bool(inside.size)
        if self.threshold is not None:
            self.called += count_at(scores, truth, self.threshold)

    def add_all(self, maps: Iterable[Any], masks: Iterable[Any]) -> None:
        """Count several images, one after the other; see :func:`medzsad.metrics.masks.pair_up`."""
        for scores, mask in pair_up(maps, masks):
            self.add(scores, mask)

    def _bins_of(self, scores: np.ndarray) -> np.ndarray:
        low, high = self.limits
        if not (scores.min() >= low and scores.max() <= high):
            raise ValueError(
                f"scores must lie in [{low:g}, {high:g}], these go from {scores.min():g} to {scores.max():g}"
            )
        # Rounding may move a score over a bin's edge, but never past another score: the order stays, and so
        # do the bounds, which rest on nothing else.
        bins = self.positives.size
        return np.minimum(((scores - low) * (bins / (high - low))).astype(np.intp), bins - 1)

    def _note_ties(self, index: np.ndarray, scores: np.ndarray) -> None:
        fresh = np.isnan(self.first)
        if fresh.any():
            new = fresh[index]
            self.first[index[new]] = scores[new]
        self.mixed[index[self.first[index] != scores]] = True

    def metrics(self, *, fpr_limit: float = 0.3) -> dict[str, Bounded | Undefined]:
        """All metrics, each with bounds between which the exact value lies for certain.

        The bounds come from the two extreme orders that the scores inside a bin can have, so they follow from
        the counts themselves, not from an estimate. The values assume a random order inside a bin, except for
        F1, whose value is the best of the bins' edges.

        Args:
            fpr_limit: where AUPRO ends.

        Returns:
            ``pixel_auroc``, ``pixel_ap``, ``pixel_f1_max``, ``pixel_aupro`` and ``pixel_mad`` (unless without
            regions), ``dice_best``, ``dice_best_threshold`` (a threshold that gives the Dice of
            ``dice_best``'s value, up to scores on a bin's edge) and, with a threshold, ``dice``.
        """
        limit = formulas.check_limit(fpr_limit)
        tallies = bounds.Tallies.of(self.positives[::-1], self.negatives[::-1], self.mixed[::-1])
        weight, unit = self.weight[::-1], self.unit

        def attempt(metric: Callable[[], Bounded]) -> Bounded | Undefined:
            try:
                require_both(tallies.all_positives, tallies.all_negatives, unit)
            except UndefinedMetric as missing:
                return Undefined(missing.reason)
            return metric()

        results = {
            f"{unit}_auroc": attempt(lambda: bounds.roc_area(tallies)),
            f"{unit}_ap": attempt(lambda: bounds.average_precision(tallies)),
            f"{unit}_f1_max": attempt(lambda: bounds.best_f1(tallies)[0]),
        }
        if self.has_regions:
            results[f"{unit}_aupro"] = attempt(
                lambda: bounds.partial_area(tallies, weight, float(self.regions), limit)
            )
            results[f"{unit}_mad"] = bounds.mean(list(results.values()))
        results["dice_best"] = results[f"{unit}_f1_max"]
        results["dice_best_threshold"] = attempt(lambda: self._best_threshold(tallies))
        if self.threshold is not None:
            tp, fp = self.called.astype(float)
            results["dice"] = (
                Bounded.exact(formulas.f1(tp, fp, tallies.all_positives))
                if tallies.all_positives
                else Undefined(f"no anomalous {unit}")
            )
        return results

    def _best_threshold(self, tallies: bounds.Tallies) -> Bounded:
        low, high = self.limits
        bins = self.positives.size
        edge = low + (bins - 1 - bounds.best_f1(tallies)[1]) * ((high - low) / bins)
        return Bounded.exact(edge)

    def __add__(self, other: ScoreHistogram) -> ScoreHistogram:
        """Return the histogram of both sets together.

        Raises:
            ValueError: if the two were made with different settings.
        """
        if not isinstance(other, ScoreHistogram):
            return NotImplemented
        if self._settings() != other._settings():
            raise ValueError(f"histograms of different settings: {self._settings()} and {other._settings()}")
        total = self._like()
        for name in _COUNTS:
            setattr(total, name, getattr(self, name) + getattr(other, name))
        total.first = np.where(np.isnan(self.first), other.first, self.first)
        total.mixed = self.mixed | other.mixed | (total.first != other.first) & ~np.isnan(other.first)
        return total

    def __radd__(self, other: Any) -> ScoreHistogram:
        """Lets ``sum(histograms)`` work, which begins with 0."""
        return self if other == 0 else NotImplemented

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Everything as arrays, for ``np.savez``; see :meth:`from_arrays`."""
        threshold = np.nan if self.threshold is None else self.threshold
        arrays = {name: np.asarray(getattr(self, name)) for name in (*_COUNTS, "first", "mixed")}
        return arrays | {
            "limits": np.array(self.limits),
            "threshold": np.array(threshold),
            "has_regions": np.array(self.has_regions),
            "unit": np.array(self.unit),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> ScoreHistogram:
        """Return the histogram that :meth:`to_arrays` wrote; ``np.load(path)`` may be given as it is."""
        threshold = float(arrays["threshold"])
        low, high = arrays["limits"].tolist()
        self = cls(
            len(arrays["positives"]),
            limits=(low, high),
            threshold=None if np.isnan(threshold) else threshold,
            regions=bool(arrays["has_regions"]),
            unit=str(arrays["unit"]),
        )
        for name in _COUNTS:
            value = arrays[name]
            setattr(self, name, np.array(value) if value.ndim else int(value))
        self.first, self.mixed = np.array(arrays["first"]), np.array(arrays["mixed"])
        return self

    def _settings(self) -> tuple[Any, ...]:
        return self.positives.size, self.limits, self.threshold, self.has_regions, self.unit

    def _like(self) -> ScoreHistogram:
        return ScoreHistogram(
            self.positives.size,
            limits=self.limits,
            threshold=self.threshold,
            regions=self.has_regions,
            unit=self.unit,
        )


_COUNTS = ("positives", "negatives", "weight", "regions", "images", "anomalous_images", "called")
