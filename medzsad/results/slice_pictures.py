"""The most anomalous slices as one picture each, drawn like the montage."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from medzsad.results.marks import save_png
from medzsad.results.montage import Montage, ShownSlice
from medzsad.results.overlay import draw_page

if TYPE_CHECKING:
    from medzsad.results.prediction import ScanPrediction

SLICES = 6


class SlicePictures:
    """The slices that the montage would show.

    Args:
        result: the prediction.
        slices: how many at most (several planes share them evenly); a 2D image has just one.
    """

    def __init__(self, result: ScanPrediction, *, slices: int = SLICES) -> None:
        self.montage = Montage(result, 1 if result.scan.is_2d else slices)
        self.shown = list(self.montage.shown)

    def name(self, piece: ShownSlice) -> str:
        """``"slice_axial_087"``: the plane and the slice's own voxel index; ``"slice_image"`` for 2D."""
        if self.montage.result.scan.is_2d:
            return "slice_image"
        return f"slice_{piece.plane}_{piece.index:03d}"

    def save(self, piece: ShownSlice, path: Path) -> None:
        """Write one of :attr:`shown` as PNG."""
        result = self.montage.result
        page = draw_page(result, self.montage, [piece])
        save_png(page, path, "slice", result.fingerprint, compress_level=4)
