"""What mutual scoring is told."""

from __future__ import annotations

from pydantic import Field

from medzsad.errors import BadInput
from medzsad.settings import Settings

FEWEST = 3
"""Scans that can be compared with each other: of two, neither is the odd one."""


class MutualSettings(Settings):
    """How a cohort scores itself; the defaults are those of MuSc (arXiv 2401.16753), but for the backbone.

    Attributes:
        features: the frozen backbone, see :func:`medzsad.zoo.loading.load_features`.
        image_size: side of its input in pixels; None for its own.
        degrees: sides of the neighbourhoods that patches are averaged over, odd.
        nearest: the share of the other scans, the most similar ones, whose distances count.
        neighbours: for image scores, how many of the most similar images (itself among them) share theirs;
            the mean over these numbers. Of volumes there is no such re-scoring.
        height_window: of volumes, slices are compared with those whose relative height differs by at most
            this, in parts of the stack; with the nearest one in any case.
        slices: of volumes, with at most so many slices of each other volume.
    """

    features: str = "lite0"
    image_size: int | None = Field(default=None, ge=32)
    degrees: tuple[int, ...] = (1, 3, 5)
    nearest: float = Field(default=0.3, gt=0, le=1)
    neighbours: tuple[int, ...] = (1, 2, 3)
    height_window: float = Field(default=0.05, ge=0, le=1)
    slices: int = Field(default=3, ge=1)

    def __post_init__(self) -> None:
        if not self.degrees or any(degree < 1 or degree % 2 == 0 for degree in self.degrees):
            raise BadInput(f"degrees {list(self.degrees)} must be odd numbers, such as 1, 3, 5")
        if not self.neighbours or min(self.neighbours) < 1:
            raise BadInput(f"neighbours {list(self.neighbours)} must be numbers from 1")
