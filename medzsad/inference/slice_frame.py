"""The square that the slices of a volume are cut to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from medzsad.scans.slices import STACK_AXIS, Plane, slice_image

# Room left around the foreground, as part of its larger side.
MARGIN = 0.02


@dataclass(frozen=True)
class SliceFrame:
    """The square that every slice of a volume is cut to, and how it comes back.

    Attributes:
        window: rows and columns of the displayed slice that are cut out.
        inner: rows and columns of the cut once its pixels are square and fit the detector.
        offset: where ``inner`` lies in the padded square.
        side: side of the square in pixels.
    """

    window: tuple[slice, slice]
    inner: tuple[int, int]
    offset: tuple[int, int]
    side: int

    @classmethod
    def around(
        cls, foreground: np.ndarray, plane: Plane, spacing: tuple[float, float], side: int
    ) -> SliceFrame:
        """Return the frame of a volume's foreground.

        Args:
            foreground: bool (X, Y, Z), canonical axes.
            plane: that the volume is cut in.
            spacing: of a slice's rows and columns, in mm.
            side: of the square, in pixels.
        """
        seen = slice_image(np.asarray(foreground.any(axis=STACK_AXIS[plane], keepdims=True)), plane, 0)
        edges = []
        for axis in range(2):
            used = np.flatnonzero(seen.any(axis=1 - axis))
            edges.append((int(used[0]), int(used[-1]) + 1))
        room = MARGIN * max((stop - start) * mm for (start, stop), mm in zip(edges, spacing, strict=True))
        rows, columns = (
            slice(max(0, start - round(room / mm)), min(limit, stop + round(room / mm)))
            for (start, stop), mm, limit in zip(edges, spacing, seen.shape, strict=True)
        )
        window = (rows, columns)
        millimetres = [(part.stop - part.start) * mm for part, mm in zip(window, spacing, strict=True)]
        scale = side / max(millimetres)
        height, width = (max(1, min(side, round(mm * scale))) for mm in millimetres)
        return cls(window, (height, width), ((side - height) // 2, (side - width) // 2), side)

    def fit(self, part: np.ndarray) -> Tensor:
        """(3, window rows, window columns) -> (3, side, side)."""
        patch = torch.from_numpy(np.ascontiguousarray(part, dtype=np.float32))
        patch = F.interpolate(patch[None], self.inner, mode="bicubic", antialias=True, align_corners=False)
        (top, left), (rows, columns) = self.offset, self.inner
        padding = (left, self.side - left - columns, top, self.side - top - rows)
        return F.pad(patch[0].clamp(0, 1), padding)

    def put_back(self, maps: Tensor) -> Tensor:
        """(B, side, side) -> (B, window rows, window columns)."""
        (top, left), (rows, columns) = self.offset, self.inner
        size = tuple(part.stop - part.start for part in self.window)
        maps = maps[:, None, top : top + rows, left : left + columns]
        return F.interpolate(maps, size, mode="bilinear", antialias=True, align_corners=False)[:, 0].clamp(
            0, 1
        )
