"""Published figures to stand beside measured ones. None of them was measured here."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

MASKS = ("published", "half", "unknown")
# The parts whose mean is the mAD of a level.
MAD_PARTS = {"image": ("auroc", "ap", "f1_max"), "pixel": ("auroc", "ap", "f1_max", "aupro")}


@dataclass(frozen=True)
class PublishedFigure:
    """What a publication reports for a data set.

    Attributes:
        method: the method, as the publication names it.
        source: the publication, and who reports it where that is somebody else.
        image, pixel: metric (as in :mod:`medzsad.metrics`) to percent. ``mad`` is the mean of its parts,
            where all of them are published.
        auxiliary: what the method was trained on.
        masks: how masks were read, one of :data:`MASKS`.
        note: what else differs from the other publications.
    """

    method: str
    source: str
    image: dict[str, float] = field(default_factory=dict)
    pixel: dict[str, float] = field(default_factory=dict)
    auxiliary: str = ""
    masks: str = "unknown"
    note: str = ""

    @property
    def protocol(self) -> str:
        """How the figures came about, in a few words."""
        trained = "no training" if self.auxiliary == "none" else f"trained on {self.auxiliary}"
        words = [trained, f"masks {self.masks}", self.note]
        return ", ".join(word for word in words if word)


@dataclass(frozen=True)
class PublishedGain:
    """What a publication reports as its gain over the best earlier method; its own figures are not known.

    Attributes:
        method, source: as in :class:`PublishedFigure`.
        domain: ``"industrial"`` or ``"medical"``: the gain is of the mean over its sets.
        image, pixel: metric to points of percent.
    """

    method: str
    source: str
    domain: str
    image: dict[str, float] = field(default_factory=dict)
    pixel: dict[str, float] = field(default_factory=dict)


@cache
def _content() -> dict[str, Any]:
    import yaml

    return yaml.safe_load((Path(__file__).parent / "published.yaml").read_text(encoding="utf-8"))


def published_figures(dataset: str) -> list[PublishedFigure]:
    """Return the published figures for a data set of the catalogue; none for most."""
    return [_figure(entry) for entry in _content()["figures"].get(dataset, ())]


def published_methods() -> list[str]:
    """Return the names of all methods with published figures, in an order that does not change by the set."""
    return list(dict.fromkeys(row["method"] for rows in _content()["figures"].values() for row in rows))


def published_gains() -> list[PublishedGain]:
    """Return the gains of publications whose figures are not known."""
    sources, gains = _content()["sources"], _content()["gains"]
    return [PublishedGain(**{**gain, "source": sources[gain["source"]]["cite"]}) for gain in gains]


def _figure(entry: dict[str, Any]) -> PublishedFigure:
    source = _content()["sources"][entry["source"]]
    levels = {}
    for level, parts in MAD_PARTS.items():
        values = dict(entry.get(level, {}))
        if all(part in values for part in parts):
            values["mad"] = math.fsum(values[part] for part in parts) / len(parts)
        levels[level] = values
    return PublishedFigure(
        entry["method"],
        source["cite"],
        **levels,
        auxiliary=source["auxiliary"],
        masks=source["masks"],
        note=source.get("note", ""),
    )


def mask_rule(dataset: str) -> Literal["published", "half"]:
    """Return the rule that a data set's masks are read by unless one is given: ``"published"`` or ``"half"``,
    see :class:`~medzsad.evaluation.settings.EvaluationSettings`."""
    return "published" if published_figures(dataset) else "half"
