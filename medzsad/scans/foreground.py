"""Where the patient is: the voxels that are neither air, nor padding, nor the frame around an image."""

from __future__ import annotations

import numpy as np

from medzsad.scans.scan import Modality, Scan
from medzsad.scans.slices import STACK_AXIS, CanonicalView, acquisition_plane

BODY_HU = -500.0  # half way between air and water
# A padding value fills at least this share of the volume, and of the volume's border.
PADDING_OF_VOLUME = 0.05
PADDING_OF_BORDER = 0.05
# When most of the border is padding, whatever is not padding was segmented (skull-stripped) or collimated.
CUT_OUT_OF_BORDER = 0.75
COARSE_MM = 4.0


def foreground_mask(scan: Scan) -> np.ndarray:
    """Return the head, body or image content of a scan.

    CT: above -500 HU, the largest connected body, without a table. MR and grey images: above 10 % of the
    robust range (Smith 2002, the threshold of BET), the largest connected body and what it encloses.
    Skull-stripped images: all that is not the padding value. Radiographs: all that is not padding. Ultrasound
    and colour: all that is not nearly black. Holes are filled slice by slice.

    Returns:
        bool (X, Y, Z), never empty: where nothing stands out, everything is foreground.
    """
    # In canonical axes, blocks and slices are the same however the file orders its voxels.
    view = CanonicalView.of(scan)
    grey = view.to_canonical(scan.voxels.max(axis=3) if scan.is_colour else scan.voxels)
    found = np.empty(scan.shape, dtype=bool, order="F")
    mask = view.to_canonical(found)
    axis = STACK_AXIS[acquisition_plane(view)]
    padding = padding_value(scan)
    threshold, one_body = _rule(scan, grey, padding)
    for index in range(mask.shape[axis]):
        here = (slice(None),) * axis + (index,)
        np.greater(grey[here], threshold, out=mask[here])
        if padding is not None:
            mask[here] &= grey[here] != padding
    if one_body:
        near, inside = _largest_body(mask, view.spacing, axis)
        mask &= near
        if scan.modality is not Modality.CT:  # dark organs inside a bright rim that is not quite closed
            mask |= inside
    _fill_holes(mask, axis)
    if not found.any():
        found[:] = True
    return found


def padding_value(scan: Scan) -> float | None:
    """Return the exact value that fills what was never measured, or was masked out; None if there is none.

    It is the file's own padding value, or the most frequent exact value at the volume's corners if that
    covers more than 5 % of the volume and of its border (-3.62 in z-scored, skull-stripped MR, -2000 outside
    a CT's field of view, 0 in many).
    """
    if scan.is_colour:
        return None
    voxels = scan.voxels
    declared = scan.details.get("padding_value")
    if declared is not None and np.count_nonzero(voxels == np.float32(declared)):
        return float(np.float32(declared))
    corners = voxels[np.ix_(*((0, -1) for _ in range(3)))].ravel()
    values, counts = np.unique(corners, return_counts=True)
    value = values[np.argmax(counts)]
    if counts.max() < 2 and voxels.size > 1:
        return None
    if np.count_nonzero(voxels == value) < PADDING_OF_VOLUME * voxels.size:
        return None
    return float(value) if _border_share(voxels, value) >= PADDING_OF_BORDER else None


def _rule(scan: Scan, grey: np.ndarray, padding: float | None) -> tuple[float, bool]:
    """Return the value that foreground exceeds, and whether it is one connected body."""
    if scan.modality is Modality.CT:
        return BODY_HU, True
    cut_out = padding is not None and _border_share(grey, padding) >= CUT_OUT_OF_BORDER
    if scan.modality is Modality.XRAY or (cut_out and not scan.is_2d):
        return -np.inf, False
    if scan.modality in (Modality.US, Modality.RGB):
        low, high = scan.details.get("range") or (float(grey.min()), float(grey.max()))
        return low + 0.04 * (high - low), False
    return _robust_threshold(grey, padding), not scan.is_2d


def _border_share(voxels: np.ndarray, value: float) -> float:
    """Share of the voxels on the volume's faces that hold ``value`` (of a flat volume, of its edges)."""
    same = total = 0
    for axis in range(3):
        if voxels.shape[axis] == 1:
            continue
        for end in (0, -1):
            face = voxels[(slice(None),) * axis + (end,)]
            same += int(np.count_nonzero(face == value))
            total += face.size
    return same / total if total else 0.0


def _robust_threshold(grey: np.ndarray, padding: float | None) -> float:
    """10 % of the way from the 2nd to the 98th percentile of what is not padding."""
    values = grey.ravel(order="K") if padding is None else grey[grey != padding]
    if values.size == 0:
        return -np.inf
    low, high = np.percentile(values, (2, 98), overwrite_input=padding is not None)
    if low == high:  # a few bright voxels on one constant value
        return float(low)
    return float(low + 0.1 * (high - low))


def _largest_body(
    mask: np.ndarray, spacing: tuple[float, float, float], slice_axis: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the largest connected body, found on a grid of about 4 mm, so that tables and noise fall away.

    Returns:
        Two bool arrays of the shape of ``mask``: one that bounds the body generously, and its inside, without
        a margin of one block.
    """
    from scipy import ndimage

    steps = tuple(
        max(1, min(round(COARSE_MM / step), -(-size // 8), 255))
        for step, size in zip(spacing, mask.shape, strict=True)
    )
    coarse = _block_any_half(mask, steps)
    _fill_holes(coarse, slice_axis)  # a thin chest wall round a lung must not look like a table
    cross = ndimage.generate_binary_structure(3, 1)
    flat = [size < 3 for size in coarse.shape]
    for axis in np.flatnonzero(flat):  # eroding along an axis of one or two slices would leave nothing
        cross[tuple(slice(None) if other != axis else [0, 2] for other in range(3))] = False
    opened = ndimage.binary_opening(np.pad(coarse, 1, mode="edge"), cross)[1:-1, 1:-1, 1:-1]
    labels, count = ndimage.label(opened if opened.any() else coarse)
    if count == 0:
        return np.ones_like(mask), np.zeros_like(mask)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    # Two legs, or a body cut in two by its field of view, are both the patient.
    body = np.isin(labels, np.flatnonzero(sizes >= 0.2 * sizes.max()))
    near = ndimage.binary_dilation(body, cross, iterations=2)
    inside = ndimage.binary_closing(np.pad(body, 3, mode="edge"), cross, iterations=3)[3:-3, 3:-3, 3:-3]
    _fill_holes(inside, slice_axis)
    inside = ndimage.binary_erosion(inside, cross, border_value=1)
    return _enlarged(near, steps, mask.shape), _enlarged(inside, steps, mask.shape)


def _enlarged(coarse: np.ndarray, steps: tuple[int, ...], shape: tuple[int, ...]) -> np.ndarray:
    for axis, step in enumerate(steps):
        coarse = np.repeat(coarse, step, axis=axis)
    return coarse[tuple(slice(0, size) for size in shape)]


def _block_any_half(mask: np.ndarray, steps: tuple[int, int, int]) -> np.ndarray:
    """Blocks of ``steps`` voxels at least half of which are set; the blocks at the end may be partial."""
    counts = mask.view(np.uint8)  # summing bool as int32 would first copy the volume as int32
    sizes = np.ones(1)
    for axis, step in enumerate(steps):
        starts = np.arange(0, mask.shape[axis], step)
        counts = np.add.reduceat(counts, starts, axis=axis, dtype=np.int32 if axis else np.uint8)
        length = np.diff(np.append(starts, mask.shape[axis]))
        sizes = sizes[..., None] * length if axis else length
    return counts >= 0.5 * sizes


def _fill_holes(mask: np.ndarray, axis: int) -> None:
    """Fill, in place, what foreground encloses within each slice along ``axis``."""
    from scipy import ndimage

    for index in range(mask.shape[axis]):
        plane = mask[(slice(None),) * axis + (index,)]
        rows, columns = np.flatnonzero(plane.any(axis=1)), np.flatnonzero(plane.any(axis=0))
        if not rows.size:
            continue
        plane = plane[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]  # beyond, nothing is enclosed
        if plane.all():
            continue
        labels, count = ndimage.label(~plane)
        outside = np.zeros(count + 1, dtype=bool)
        for edge in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
            outside[edge] = True
        outside[0] = False
        plane[...] = ~outside[labels]
