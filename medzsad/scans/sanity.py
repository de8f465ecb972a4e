"""Numbers of a scan that no scanner writes, refused before anything is computed from them."""

from __future__ import annotations

import numpy as np

from medzsad.errors import BadInput
from medzsad.limits import limit
from medzsad.scans.scan import Scan

SMALLEST_MM, LARGEST_MM = 1e-7, 1e4
"""Of a voxel's side: from electron microscopes to a whole body in one voxel."""
FARTHEST_MM = 1e7
LARGEST_VALUE = 1e30
SMALLEST_RANGE = 1e-30
MANY_SLICES = 100


def check_sane(scan: Scan) -> None:
    """Raise BadInput on voxel sizes, positions or values that cannot be, and slices too small to see.

    Such numbers are a damaged header's. They would end in infinities far from their cause.
    """
    source = scan.source
    if not np.isfinite(scan.affine).all():
        raise BadInput(f"{source} has a position or voxel size that is no finite number; correct its header.")
    if scan.has_geometry:
        with np.errstate(all="ignore"):
            sides = np.linalg.norm(scan.affine[:3, :3].astype(np.float64), axis=0)
        if not ((sides >= SMALLEST_MM) & (sides <= LARGEST_MM)).all():
            raise BadInput(
                f"{source} has voxels of {' x '.join(f'{side:.3g}' for side in sides)} mm, which cannot be; "
                "correct its header."
            )
        if np.abs(scan.affine[:3, 3]).max() > FARTHEST_MM:
            raise BadInput(
                f"{source} lies {np.abs(scan.affine[:3, 3]).max():.3g} mm from the origin; correct it."
            )
    small = limit("MEDZSAD_MIN_SIDE")
    shortest, middle, longest = sorted(scan.shape)
    if middle < small and longest >= MANY_SLICES:
        raise BadInput(
            f"{source} has {longest} slices of {shortest} x {middle} voxels, in which there is nothing to "
            "see; MEDZSAD_MIN_SIDE sets the smallest side that is computed."
        )
    if scan.voxels.size:
        low, high = float(scan.voxels.min()), float(scan.voxels.max())
        if np.isfinite([low, high]).all() and max(-low, high) > LARGEST_VALUE:
            raise BadInput(
                f"{source} has values up to {max(-low, high):.3g}, which no scan has; correct its scaling."
            )
        if low != high and high - low < SMALLEST_RANGE:
            raise BadInput(
                f"{source} is constant: its values differ by {high - low:.3g}; give the scan itself."
            )
