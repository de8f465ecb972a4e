"""The volumes that a report carries: small enough for a file and a graphics card, in the right place."""

from __future__ import annotations

import base64
import gzip
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from medzsad.scans.scan import Modality

if TYPE_CHECKING:
    from medzsad.results.prediction import ScanPrediction

# Beyond these a volume is downsampled: voxels, because a graphics card holds them several times over, and
# characters of base64, because the file should open and travel easily.
MAX_VOXELS = 10_000_000
MAX_CHARACTERS = 20_000_000
LEVELS = 255
CT_RANGE = (-1100.0, 6000.0)  # HU, from air to metal


@dataclass(frozen=True)
class ViewerVolumes:
    """A scan, its anomaly map and its mask as the report's viewer reads them.

    Attributes:
        scan: gzipped NIfTI in base64: int16 with slope and intercept, or uint8 RGB for colour.
        anomaly: the same grid: uint8, 255 is 1.
        mask: the same grid and values: 1 where the prediction's mask holds any of a voxel, else 0.
        factors: how many native voxels along each axis make one voxel of these; (1, 1, 1) as a rule.
        shape: voxels along each axis.
        affine: float64 (4, 4), voxel to world mm, RAS+.
        window: values of ``scan`` that become black and white.
    """

    scan: str
    anomaly: str
    mask: str
    factors: tuple[int, int, int]
    shape: tuple[int, int, int]
    affine: np.ndarray
    window: tuple[float, float]

    @property
    def note(self) -> str | None:
        """What a reader must know about the resolution, if it is not the scan's own."""
        if self.factors == (1, 1, 1):
            return None
        blocks = " x ".join(map(str, self.factors))
        shape = " x ".join(map(str, self.shape))
        return (
            f"Downsampled for this viewer to {shape} voxels: each shows the mean of {blocks} voxels of the "
            "scan and the highest value of the map in them, and is marked if one of them is. Scores, volumes "
            "and the files beside this report are at full resolution."
        )


def viewer_volumes(
    prediction: ScanPrediction, *, max_voxels: int = MAX_VOXELS, max_characters: int = MAX_CHARACTERS
) -> ViewerVolumes:
    """Pack a prediction's scan, map and mask, downsampled as little as the limits allow."""
    scan = prediction.scan
    factors = _factors(scan.shape, scan.spacing, max_voxels)
    while True:
        x, y, z = (math.ceil(size / factor) for size, factor in zip(scan.shape, factors, strict=True))
        shape = (x, y, z)
        affine = block_affine(scan.affine, factors)
        window = (float(prediction.scaling.low[0]), float(prediction.scaling.high[0]))
        if scan.is_colour:
            window = (0.0, float(LEVELS))
            packed = _pack_colour(prediction, factors, affine)
        else:
            packed = _pack_grey(prediction, factors, affine)
        levels = np.floor(reduce_blocks(prediction.anomaly_map, factors, "max") * LEVELS).astype(np.uint8)
        anomaly = _encode(levels, affine, slope=1 / LEVELS, intercept=0.0)
        marked = reduce_blocks(prediction.mask, factors, "max").astype(np.uint8) * np.uint8(LEVELS)
        mask = _encode(marked, affine, slope=1 / LEVELS, intercept=0.0)
        if len(packed) + len(anomaly) + len(mask) <= max_characters or math.prod(shape) <= 1000:
            return ViewerVolumes(packed, anomaly, mask, factors, shape, affine, window)
        factors = _factors(scan.shape, scan.spacing, math.prod(shape) // 2)


def block_affine(affine: np.ndarray, factors: tuple[int, int, int]) -> np.ndarray:
    """Return the affine of a volume whose voxels are blocks of ``factors`` voxels: centres match."""
    step = np.diag([*map(float, factors), 1.0])
    step[:3, 3] = (np.array(factors, dtype=float) - 1) / 2
    return affine @ step


def reduce_blocks(array: np.ndarray, factors: tuple[int, int, int], how: str) -> np.ndarray:
    """Each block of ``factors`` voxels as one voxel: its ``"mean"`` or ``"max"``.

    Args:
        array: (X, Y, Z[, C]); where a block reaches over the edge, the last voxels are repeated.

    Returns:
        The array itself if all factors are 1, else float32 (ceil(X / f), ...).
    """
    if factors == (1, 1, 1):
        return array
    for axis, factor in enumerate(factors):
        if factor == 1:
            continue
        missing = -array.shape[axis] % factor
        padding = [(0, missing if other == axis else 0) for other in range(array.ndim)]
        array = np.pad(array, padding, mode="edge")
        blocks = (*array.shape[:axis], array.shape[axis] // factor, factor, *array.shape[axis + 1 :])
        array = getattr(array.reshape(blocks), how)(axis=axis + 1)
    return array.astype(np.float32, copy=False)


def _factors(
    shape: tuple[int, int, int], spacing: tuple[float, float, float], max_voxels: int
) -> tuple[int, int, int]:
    """Whole factors that bring a grid under ``max_voxels``, coarsening where it is finest first."""
    factors = [1, 1, 1]
    while (
        math.prod(math.ceil(size / factor) for size, factor in zip(shape, factors, strict=True)) > max_voxels
    ):
        able = [axis for axis in range(3) if factors[axis] < shape[axis]]
        if not able:
            break
        finest = min(able, key=lambda axis: factors[axis] * spacing[axis])
        # Axes as fine as this one go along, so that isotropic grids stay isotropic.
        limit = factors[finest] * spacing[finest] * 1.01
        for axis in able:
            if factors[axis] * spacing[axis] <= limit:
                factors[axis] += 1
    return factors[0], factors[1], factors[2]


def _pack_grey(prediction: ScanPrediction, factors: tuple[int, int, int], affine: np.ndarray) -> str:
    voxels, scaling = prediction.scan.voxels, prediction.scaling
    if scaling.padding is not None:
        voxels = np.where(
            voxels == np.float32(scaling.padding), np.float32(math.floor(scaling.low[0])), voxels
        )
    voxels = reduce_blocks(voxels, factors, "mean")
    low, high = float(voxels.min()), float(voxels.max())
    # Outliers must not cost the shown range its grey levels: nothing is kept beyond 4 windows around it. A CT
    # keeps the whole range of tissues, for the page offers other windows.
    width = float(scaling.high[0] - scaling.low[0])
    is_ct = prediction.scan.modality is Modality.CT
    kept = CT_RANGE if is_ct else (scaling.low[0] - 4 * width, scaling.high[0] + 4 * width)
    low, high = max(low, math.floor(kept[0])), min(high, math.ceil(kept[1]))
    if not high > low:
        low, high = float(scaling.low[0]), float(scaling.high[0])
    whole = float(low).is_integer() and high - low <= 60000 and np.array_equal(voxels, np.rint(voxels))
    slope = 1.0 if whole else (high - low) / 60000
    intercept = low + 30000 * slope
    stored = np.rint((np.clip(voxels, low, high) - intercept) / slope).astype(np.int16)
    return _encode(stored, affine, slope, intercept)


def _pack_colour(prediction: ScanPrediction, factors: tuple[int, int, int], affine: np.ndarray) -> str:
    shown = np.moveaxis(prediction.scaling(reduce_blocks(prediction.scan.voxels, factors, "mean")), 0, -1)
    levels = np.rint(shown * 255).astype(np.uint8)
    rgb = np.ascontiguousarray(levels).view(np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))[..., 0]
    return _encode(rgb, affine)


def _encode(array: np.ndarray, affine: np.ndarray, slope: float = 1.0, intercept: float = 0.0) -> str:
    """Gzipped NIfTI in base64. The header holds geometry and nothing else."""
    import nibabel

    image = nibabel.Nifti1Image(array, None)
    image.header.set_sform(affine, code=1)
    image.header["qform_code"] = 0
    image.header["pixdim"][1:4] = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    image.header.set_xyzt_units("mm")
    header = image.header.copy()
    header["scl_slope"], header["scl_inter"] = slope, intercept
    header["vox_offset"], header["magic"] = 352, b"n+1"
    raw = header.binaryblock + b"\0" * 4 + array.tobytes(order="F")
    return base64.b64encode(gzip.compress(raw, compresslevel=6, mtime=0)).decode("ascii")
