"""What an evaluation does, as one small object."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from medzsad.datasets.images import MASK_RULES
from medzsad.datasets.published import mask_rule
from medzsad.errors import BadInput
from medzsad.limits import check_batch, check_limit
from medzsad.metrics.bootstrap import Draws

PAPERS_SIZE = 518
FRAMINGS = ("auto", "whole", "foreground")
MODES = ("auto", "exact", "histogram")
MASKS = ("auto", *MASK_RULES)


@dataclass(frozen=True)
class EvaluationSettings:
    """The settings that determine an evaluation's numbers.

    Attributes:
        size: side in pixels of the square that maps and masks of 2D images are compared at; 518, as in the
            published evaluations, or None for each image's own size. Volumes keep their own grid.
        framing: what a detector is shown of a 2D image: ``"whole"`` (resized to a square, as in the published
            evaluations), ``"foreground"`` (as ``medzsad predict`` shows it: intensities scaled, cropped to
            the foreground, padded), or ``"auto"`` (what the detector was made for).
        mode: ``"exact"`` metrics, ``"histogram"`` (bounded memory, with error bounds), or ``"auto"``: exact
            as long as a class has at most :attr:`exact_pixels` pixels.
        masks: how masks of 2D images are read and resized: ``"published"`` as in the published evaluations
            (whatever is not black, bilinear, more than half), ``"half"`` (greys cut at half of white, nearest
            pixel), or ``"auto"``: published where published figures stand beside, else half.
        exact_pixels: see ``mode``; 150 million need about 2 GB.
        fpr_limit: of AUPRO, in (0, 1].
        threshold: of the map for Dice and for lesions; None for each detector's own.
        resamples: of the bootstrap; 0 for no intervals. Of a single image or case there are none either.
        seed: of the bootstrap.
        foreground_only: for volumes, compare only voxels inside the given foreground masks.
        minimum_lesion_ml: smaller lesions of the ground truth do not count for the lesion-wise figures.
        class_name: what texts call all images; None for the names that the set's classes have
            (:mod:`medzsad.datasets.catalog`).
    """

    size: int | None = PAPERS_SIZE
    framing: str = "auto"
    mode: str = "auto"
    masks: str = field(default="auto", kw_only=True)
    exact_pixels: int = 150_000_000
    fpr_limit: float = 0.3
    threshold: float | None = None
    resamples: int = 1000
    seed: int = 0
    foreground_only: bool = False
    minimum_lesion_ml: float = 0.0
    class_name: str | None = None

    def __post_init__(self) -> None:
        check_batch(self.size or 0, 1, f"`size` {self.size}")
        check_limit(self.resamples, "MEDZSAD_MAX_RESAMPLES", f"`resamples` {self.resamples}", "draws")
        rules = (
            (f"framing must be one of {', '.join(FRAMINGS)}", self.framing in FRAMINGS),
            (f"mode must be one of {', '.join(MODES)}", self.mode in MODES),
            (f"masks must be one of {', '.join(MASKS)}", self.masks in MASKS),
            ("size must be at least 16 pixels", self.size is None or self.size >= 16),
            ("the FPR limit must lie in (0, 1]", 0 < self.fpr_limit <= 1),
            ("the threshold must lie in [0, 1]", self.threshold is None or 0 <= self.threshold <= 1),
            ("resamples must not be negative", self.resamples >= 0),
            ("the seed must not be negative", self.seed >= 0),
            ("the minimum lesion volume must not be negative", self.minimum_lesion_ml >= 0),
            (
                "the class name must not be empty",
                self.class_name is None or bool(self.class_name.strip(" -")),
            ),
        )
        for rule, holds in rules:
            if not holds:
                raise BadInput(f"evaluation settings: {rule}")

    def draws(self, items: int) -> Draws | None:
        """How to resample ``items`` images or cases; None for no intervals.

        A single one would always be drawn again: an interval without width would look like certainty.
        """
        return Draws(self.resamples, seed=self.seed) if self.resamples and items > 1 else None

    def for_set(self, dataset: str) -> EvaluationSettings:
        """Return the settings with ``masks`` decided for a data set of the catalogue."""
        return self if self.masks != "auto" else replace(self, masks=mask_rule(dataset))

    def as_dict(self) -> dict[str, Any]:
        """JSON-serialisable."""
        return asdict(self)
