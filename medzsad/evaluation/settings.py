"""What an evaluation does, and how it is run, as two small objects."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from pydantic import Field

from medzsad.datasets.published import mask_rule
from medzsad.errors import BadInput
from medzsad.limits import SMALLEST_SIDE, check_batch, check_limit
from medzsad.metrics.bootstrap import Draws
from medzsad.settings import Settings

PAPERS_SIZE = 518
REFERENCES = ("brightness", "darkness", "asymmetry")


class EvaluationSettings(Settings):
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
        minimum_lesion_iou: a lesion is found by a candidate of at least this IoU with it; 0 asks for a shared
            voxel. With that, one candidate over a whole organ would find all of them.
        class_name: what texts call all images; None for the names that the set's classes have
            (:func:`medzsad.datasets.catalog.name_in_texts`).
    """

    size: int | None = Field(default=PAPERS_SIZE, ge=16)
    framing: Literal["auto", "whole", "foreground"] = "auto"
    mode: Literal["auto", "exact", "histogram"] = "auto"
    masks: Literal["auto", "published", "half"] = "auto"
    exact_pixels: int = 150_000_000
    fpr_limit: float = Field(default=0.3, gt=0, le=1)
    threshold: float | None = Field(default=None, ge=0, le=1)
    resamples: int = Field(default=1000, ge=0)
    seed: int = Field(default=0, ge=0)
    foreground_only: bool = False
    minimum_lesion_ml: float = Field(default=0.0, ge=0)
    minimum_lesion_iou: float = Field(default=0.1, ge=0, le=1)
    class_name: str | None = None

    def __post_init__(self) -> None:
        check_batch(self.size or 0, 1, f"`size` {self.size}")
        check_limit(self.resamples, "MEDZSAD_MAX_RESAMPLES", f"`resamples` {self.resamples}", "draws")
        if self.class_name is not None and not self.class_name.strip(" -"):
            raise BadInput("class_name must not be empty")

    def draws(self, items: int) -> Draws | None:
        """How to resample ``items`` images or cases; None for no intervals.

        A single one would always be drawn again: an interval without width would look like certainty.
        """
        return Draws(self.resamples, seed=self.seed) if self.resamples and items > 1 else None

    def for_set(self, dataset: str) -> EvaluationSettings:
        """Return the settings with ``masks`` decided for a data set of the catalogue."""
        return self if self.masks != "auto" else replace(self, masks=mask_rule(dataset))


class RunSettings(Settings):
    """How an evaluation is run: what no figure of a detector depends on.

    Attributes:
        out: folder of the results; None writes nothing. Each set of a suite has a folder of its own in it.
        save_maps: also write all maps and contact sheets there.
        references: names of the trivial references to run beside the detectors.
        batch_size: images at once.
        no_cache: keep no predictions (of a suite, no evaluations either), and take none of earlier runs.
    """

    out: Path | None = None
    save_maps: bool = False
    references: tuple[str, ...] = REFERENCES
    batch_size: int = 1
    no_cache: bool = False

    def __post_init__(self) -> None:
        check_batch(SMALLEST_SIDE, self.batch_size, f"a batch of {self.batch_size} images")
