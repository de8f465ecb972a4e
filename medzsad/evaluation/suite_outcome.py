"""What evaluating a suite gave, and means over the sets of a domain, as the papers' headlines have them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from medzsad.datasets.catalog import DatasetEntry
from medzsad.datasets.finding import FoundSet
from medzsad.datasets.published import PublishedFigure, published_gains
from medzsad.evaluation.outcome import METRICS, Evaluation, Figure
from medzsad.evaluation.settings import EvaluationSettings

DOMAINS = ("industrial", "medical")


@dataclass
class SetOutcome:
    """What became of one data set of a suite.

    Attributes:
        entry: the data set.
        status: ``"done"``, ``"missing"`` (not in the folder) or ``"failed"``.
        found: where it lies; None if it is missing.
        evaluation: None unless it is done.
        message: why it failed, one line.
        exit_code: of the failure.
        reused: whether the evaluation is of an earlier run.
    """

    entry: DatasetEntry
    status: str
    found: FoundSet | None = None
    evaluation: Evaluation | None = None
    message: str = ""
    exit_code: int = 0
    reused: bool = False

    @property
    def result(self) -> Evaluation:
        """The evaluation of a set that is done."""
        assert self.evaluation is not None
        return self.evaluation

    @property
    def place(self) -> FoundSet:
        """Where a set lies that is not missing."""
        assert self.found is not None
        return self.found


@dataclass
class Suite:
    """What evaluating a suite gave.

    Attributes:
        name: of the suite, or the names of its sets.
        sets: all of its sets, in order.
        settings: of the evaluation, without what is decided set by set.
        limit: at most so many samples of each set; None for all.
        split: the part of the sets.
    """

    name: str
    sets: list[SetOutcome] = field(default_factory=list)
    settings: EvaluationSettings = field(default_factory=EvaluationSettings)
    limit: int | None = None
    split: str = "test"

    @property
    def done(self) -> list[SetOutcome]:
        """The sets that have figures."""
        return [one for one in self.sets if one.status == "done"]

    @property
    def exit_code(self) -> int:
        """0 if no set failed; else that of a bug of ours before that of bad input."""
        codes = {one.exit_code for one in self.sets if one.status == "failed"}
        return min(codes, default=0)

    def named(self, status: str) -> list[str]:
        """Return the names of the sets with a status."""
        return [one.entry.name for one in self.sets if one.status == status]


@dataclass(frozen=True)
class Row:
    """One method on one set, or its mean over a domain's sets.

    Attributes:
        kind: ``"model"``, ``"reference"``, ``"published"`` or ``"gain"``.
        method: its name.
        figures: metric to figure, as fractions; gains as fractions of points.
        zero_shot: False if it was trained on images of the set.
        source, protocol: of what is published.
    """

    kind: str
    method: str
    figures: dict[str, Figure]
    zero_shot: bool = True
    source: str = ""
    protocol: str = ""


@dataclass(frozen=True)
class Block:
    """Rows that belong together.

    Attributes:
        domain: ``"industrial"`` or ``"medical"``.
        outcome: the set; None for the mean over the domain's sets.
        sets: how many sets the rows are of.
        rows: models, then references, then what is published.
    """

    domain: str
    outcome: SetOutcome | None
    sets: int
    rows: tuple[Row, ...]


def levels_of(suite: Suite) -> list[str]:
    """Return the levels at which any set has figures, in the order of the tables."""
    return [level for level in METRICS if any(has_level(one.evaluation, level) for one in suite.done)]


def has_level(evaluation: Evaluation | None, level: str) -> bool:
    """Return whether any detector has a figure at that level."""
    return evaluation is not None and any(
        figure.value is not None
        for detector in evaluation.detectors
        for figure in detector.mean.get(level, {}).values()
    )


def columns_of(level: str) -> dict[str, str]:
    """Return the metrics of a suite's table and their titles: without Dice, which depends on thresholds."""
    columns = METRICS[level]
    return {key: title for key, title in columns.items() if not (level == "pixel" and key == "dice")}


def blocks_of(suite: Suite, level: str) -> list[Block]:
    """Return the rows of each set that has the level, domain by domain, each with its mean at the end."""
    blocks: list[Block] = []
    for domain in DOMAINS:
        sets = [one for one in suite.done if one.entry.domain == domain and has_level(one.evaluation, level)]
        own = [Block(domain, one, 1, (*_measured(one, level), *_published(one, level))) for one in sets]
        blocks += own
        if own:
            blocks.append(Block(domain, None, len(own), (*_mean(own), *_gains(suite, domain, level))))
    return blocks


def _measured(outcome: SetOutcome, level: str) -> list[Row]:
    return [
        Row(
            "reference" if detector.reference else "model",
            detector.name,
            {key: detector.mean.get(level, {}).get(key, Figure(None)) for key in columns_of(level)},
            detector.zero_shot,
        )
        for detector in outcome.result.detectors
    ]


def _published(outcome: SetOutcome, level: str) -> list[Row]:
    rows = []
    for figure in outcome.result.published:
        values = getattr(figure, level, {})
        if values:
            rows.append(_published_row(figure, values))
    return rows


def _published_row(figure: PublishedFigure, values: dict[str, float]) -> Row:
    figures = {key: Figure(value / 100) for key, value in values.items()}
    return Row("published", figure.method, figures, source=figure.source, protocol=figure.protocol)


def _mean(blocks: Sequence[Block]) -> list[Row]:
    """Return the mean row of each method; of what is published only where every set has the figure."""
    rows = []
    names = dict.fromkeys((row.kind, row.method) for block in blocks for row in block.rows)
    for kind, method in names:
        # Where sources disagree about a set, the one that stands first counts: the method's own.
        same = [next((r for r in b.rows if (r.kind, r.method) == (kind, method)), None) for b in blocks]
        there = [row for row in same if row is not None]
        keys = dict.fromkeys(key for row in there for key in row.figures)
        figures = {key: _average(row.figures.get(key) if row else None for row in same) for key in keys}
        if kind == "published":
            figures = {key: figure for key, figure in figures.items() if figure.value is not None}
            if not figures:
                continue
        source = " and ".join(dict.fromkeys(row.source for row in there))
        protocol = " and ".join(dict.fromkeys(row.protocol for row in there))
        rows.append(Row(kind, method, figures, all(row.zero_shot for row in there), source, protocol))
    return rows


def _average(figures: Iterable[Figure | None]) -> Figure:
    known = list(figures)
    values = [figure.value for figure in known if figure is not None and figure.value is not None]
    if len(values) < len(known):
        reason = next((figure.reason for figure in known if figure is not None and figure.reason), None)
        return Figure.undefined(reason or "not in every set")
    return Figure(math.fsum(values) / len(values))


def _gains(suite: Suite, domain: str, level: str) -> list[Row]:
    return [
        Row("gain", gain.method, {k: Figure(v / 100) for k, v in values.items()}, True, gain.source)
        for gain in published_gains()
        if gain.domain == domain
        and any(one.entry.paper for one in suite.sets)
        and not any(one.result.doubt for one in suite.done if one.entry.domain == domain)
        and (values := getattr(gain, level, {}))
    ]
