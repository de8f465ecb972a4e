"""What volume scores mean: where one lies among those of volumes in which nothing is wrong.

A score by itself says little. A detector may know the scores that it gave normal volumes of a kind, as stored
quantiles; then a result says "higher than 80 % of 24 real normal MR heads". That holds for scans predicted as
those were: with the detector's own rules, along the acquisition plane, the brain as region of interest. It is
no test: the volumes are few, made ones only resemble scans, and where the score of another kind of scan would
lie is not known, so of others nothing is said.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from medzsad.scans.scan import Modality

if TYPE_CHECKING:
    from medzsad.detectors.volume_rules import VolumeRules

KINDS = {Modality.MR: "MR head", Modality.CT: "CT head"}
FEWEST = 10  # volumes of one origin; of fewer nothing is said
STEPS = 20  # quantiles are stored at 0, 1 / STEPS, ..., 1


@dataclass(frozen=True)
class NormalScores:
    """The volume scores of normal volumes of one kind and origin.

    Attributes:
        kind: what the volumes show, one of :data:`KINDS`.
        origin: ``"real"`` or ``"made"``.
        count: of the volumes.
        quantiles: of their scores, at even steps from the lowest to the highest.
        rules: for volumes, that they were predicted with: the fields of
            :class:`~medzsad.detectors.volume_rules.VolumeRules`; None where that is not known.
    """

    kind: str
    origin: str
    count: int
    quantiles: tuple[float, ...]
    rules: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, kind: str, origin: str, scores: Iterable[float], rules: VolumeRules) -> NormalScores:
        """Return the quantiles of ``scores``, at least one, that volumes got with these rules."""
        values = np.array(list(scores), dtype=float)
        quantiles = np.quantile(values, np.linspace(0, 1, STEPS + 1)).round(4)
        return cls(kind, origin, len(values), tuple(quantiles.tolist()), asdict(rules))

    def share_below(self, score: float) -> float:
        """Return the share that a score is higher than, in [0, 1], linear between quantiles."""
        levels = np.linspace(0, 1, len(self.quantiles))
        return float(np.interp(score, self.quantiles, levels))


@dataclass(frozen=True)
class ScoreContext:
    """Where a volume score lies among those of normal volumes.

    Attributes:
        kind, origin, count: of the volumes, see :class:`NormalScores`.
        higher_than: the share of them that have a lower score, in [0, 1].
    """

    kind: str
    origin: str
    count: int
    higher_than: float


def read_normal_scores(stored: Iterable[Mapping[str, Any]] | None) -> tuple[NormalScores, ...]:
    """Return what a checkpoint's settings say of normal volumes; nothing where they say nothing.

    Raises:
        TypeError: on fields that are missing or unknown.
    """
    return tuple(NormalScores(**{**one, "quantiles": tuple(one["quantiles"])}) for one in stored or ())


def context_of(
    score: float, modality: Modality, known: Iterable[NormalScores], rules: VolumeRules
) -> tuple[ScoreContext, ...]:
    """Return where the score of a head lies, for each origin with :data:`FEWEST` volumes of its kind.

    Scores that were measured with other rules, as by an earlier version, are not compared with.
    """
    same = asdict(rules)
    return tuple(
        ScoreContext(one.kind, one.origin, one.count, round(one.share_below(score), 2))
        for one in known
        if one.kind == KINDS.get(modality) and one.count >= FEWEST and one.rules == same
    )


def in_words(contexts: Iterable[ScoreContext | Mapping[str, Any]]) -> str:
    """Return a score's context as text, such as "higher than 80 % of 24 real normal MR heads"; may be ""."""
    known = [one if isinstance(one, ScoreContext) else ScoreContext(**one) for one in contexts]
    parts = [f"{one.higher_than:.0%} of {one.count} {one.origin}".replace("%", " %") for one in known]
    return f"higher than {' and '.join(parts)} normal {known[0].kind}s" if known else ""
