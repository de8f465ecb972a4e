"""A volume as a detector sees it: canonical axes, foreground, intensities, and the slices worth computing.

Predicting and training prepare volumes here, so that a detector learns from what it is shown later.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from medzsad.scans.foreground import foreground_mask
from medzsad.scans.intensity import IntensityScaling, intensity_scaling
from medzsad.scans.scan import Scan
from medzsad.scans.slices import STACK_AXIS, CanonicalView, Plane, other_axes, planes_to_slice, slice_image

# A slice with less foreground than this part of the largest slice's is noise at the edge of the body.
EMPTY_FRACTION = 0.002

Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
"""First index and the one after the last, along each canonical axis."""


@dataclass(frozen=True)
class PreparedVolume:
    """A scan in canonical axes, so that storage order cannot change a result; nothing is copied.

    Attributes:
        scan: the scan with its voxels in canonical axes, at the origin, its spacing rounded as the view's.
        view: leads to the scan's own axes and back.
        foreground: bool (X, Y, Z), canonical: head, body or image content, without air.
        scaling: of its voxels to [0, 1].
        planes: to slice along.
    """

    scan: Scan
    view: CanonicalView
    foreground: np.ndarray
    scaling: IntensityScaling
    planes: tuple[Plane, ...]

    @classmethod
    def of(cls, scan: Scan, *, plane: Plane | str = Plane.AUTO, window: str | None = None) -> PreparedVolume:
        """Prepare a scan.

        Args:
            scan: as read.
            plane: see :func:`~medzsad.scans.slices.planes_to_slice`.
            window: see :func:`~medzsad.scans.intensity.intensity_scaling`.

        Raises:
            BadInput: a window that is not known or does not fit the modality.
        """
        view = CanonicalView.of(scan)
        canonical = replace(scan, voxels=view.to_canonical(scan.voxels), affine=np.diag([*view.spacing, 1.0]))
        foreground = foreground_mask(canonical)
        scaling = intensity_scaling(canonical, window=window, foreground=foreground)
        return cls(canonical, view, foreground, scaling, planes_to_slice(plane, view))

    @cached_property
    def box(self) -> Box:
        """The smallest box around the foreground."""
        return box_around(self.foreground)

    def slices(self, plane: Plane) -> list[int]:
        """Return the canonical indices of the slices worth computing: see :func:`slices_worth_computing`."""
        return slices_worth_computing(self.foreground, plane)

    def image(self, plane: Plane, index: int) -> np.ndarray:
        """Slice ``index`` as displayed: float32 (3, rows, columns) in [0, 1], 0 outside the foreground."""
        image = self.scaling(slice_image(self.scan.voxels, plane, index))
        return image * slice_image(self.foreground, plane, index)


def box_around(mask: np.ndarray) -> Box:
    """Return the smallest box around what is set in ``mask``, bool (X, Y, Z), canonical; not an empty one."""
    edges = []
    for axis in range(3):
        hits = np.flatnonzero(mask.any(axis=other_axes(axis)))
        edges.append((int(hits[0]), int(hits[-1]) + 1))
    return edges[0], edges[1], edges[2]


def slices_worth_computing(foreground: np.ndarray, plane: Plane, least_area: float = 0.0) -> list[int]:
    """Return the slices of a volume that hold enough foreground, by canonical index.

    Args:
        foreground: bool (X, Y, Z), canonical.
        plane: axial, coronal or sagittal.
        least_area: part of the largest slice's foreground that a slice must exceed; at least
            :data:`EMPTY_FRACTION`.
    """
    counts = foreground.sum(axis=other_axes(STACK_AXIS[plane]))
    return np.flatnonzero(counts > max(EMPTY_FRACTION, least_area) * max(int(counts.max()), 1)).tolist()
