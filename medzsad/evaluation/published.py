"""Published figures to stand beside measured ones. None of them was measured here."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class PublishedFigure:
    """What a publication reports for a data set.

    Attributes:
        method: the method, as the publication names it.
        source: the publication.
        image, pixel: metric (as in :mod:`medzsad.metrics`) to percent.
    """

    method: str
    source: str
    image: dict[str, float] = field(default_factory=dict)
    pixel: dict[str, float] = field(default_factory=dict)


@cache
def _all() -> dict[str, list[PublishedFigure]]:
    import yaml

    content = yaml.safe_load((Path(__file__).parent / "published.yaml").read_text(encoding="utf-8"))
    sources = content["sources"]
    return {
        name: [PublishedFigure(**{**entry, "source": sources[entry["source"]]}) for entry in entries]
        for name, entries in content["figures"].items()
    }


def published_figures(dataset: str) -> list[PublishedFigure]:
    """The published figures for a data set of the catalogue; none for most."""
    return list(_all().get(dataset, []))
