"""Slices of made head volumes as ``predict`` shows them: what a volume score is judged on, but other heads.

Volumes of :mod:`synthetic.head_volumes` go through the reading, framing and scaling of the package, so that
a network learns from slices of 3 to 5 mm with all that lies below a brain. A head and its twin with lesions
give half of the slices each.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from medzsad.inference.slice_frame import SliceFrame
from medzsad.inference.slicewise import SliceWisePredictor
from medzsad.scans.prepared import PreparedVolume, slices_worth_computing
from medzsad.scans.readers import read_scan
from medzsad.scans.slices import Plane, pixel_spacing, slice_image
from synthetic.head_volumes import HeadVolume, draw_head_volume
from synthetic.heads import Head
from synthetic.planes import NEIGHBOUR_MM

FIRST_SEED = 1_000_000  # those of volumes that are judged are far below
OF_EACH = 6  # slices of a head and its twin together
CUT = 0.5  # share of heads whose field of view ends somewhere below or above
LEAST_AREA = 0.1  # of the largest slice
FAINT = 0.3  # part of a lesion's contrast from which on a place that is not marked is not judged


class ShownSlices(NamedTuple):
    """Slices as a detector is shown them.

    Attributes:
        images: float32 (N, 3, S, S) in [0, 1]: own slice, below, above.
        lesions: int16 (N, S, S), number of the lesion in its slice, 0 outside, -1 where it is not judged.
        brain: float32 (N, S, S), 1 inside the brain.
    """

    images: Tensor
    lesions: np.ndarray
    brain: np.ndarray


def draw_shown(
    r: np.random.Generator, count: int, size: int, heads: list[Head], *, lesions: bool = True
) -> ShownSlices:
    """Draw slices of as many heads as it takes.

    Args:
        r: random numbers; all that is drawn comes from them.
        count: of slices, at least 1.
        size: side of the slices in pixels.
        heads: of :func:`synthetic.heads.load_heads`.
        lesions: take half of the slices from heads with lesions.
    """
    parts = []
    for first in range(0, count, OF_EACH):
        made = draw_head_volume(np.random.default_rng(FIRST_SEED + int(r.integers(2**40))), heads)
        many = min(OF_EACH, count - first)
        of_sick = (many // 2 + int(many % 2 and r.random() < 0.5)) * lesions
        made = cut_ends(r, made) if r.random() < CUT else made
        for sick, some in ((True, of_sick), (False, many - of_sick)):
            if some:
                parts.append(shown_slices(r, made, some, size, sick=sick))
    return ShownSlices(
        torch.cat([part.images for part in parts]),
        np.concatenate([part.lesions for part in parts]),
        np.concatenate([part.brain for part in parts]),
    )


def cut_ends(r: np.random.Generator, made: HeadVolume) -> HeadVolume:
    """Return a volume whose field of view ends earlier: below anywhere up to the brain's middle."""
    inside = np.flatnonzero(made.brain.any(axis=(0, 1)))
    if not inside.size:
        return made
    low = int(r.integers(0, (inside[0] + inside[-1]) // 2 + 1))
    high = int(r.integers((inside[0] + 2 * inside[-1]) // 3, made.normal.shape[2]))
    kept = (slice(None), slice(None), slice(low, high + 1))
    return made._replace(
        normal=made.normal[kept], sick=made.sick[kept], lesions=made.lesions[kept], brain=made.brain[kept]
    )


def shown_slices(
    r: np.random.Generator, made: HeadVolume, count: int, size: int, *, sick: bool
) -> ShownSlices:
    """Return slices of one volume; of a sick one mostly those that show a lesion."""
    voxels = made.sick if sick else made.normal
    prepared = PreparedVolume.of(read_scan(voxels, affine=made.affine, modality=made.modality, name="made"))
    spacing, foreground = prepared.scan.spacing, prepared.foreground
    change = np.abs(made.sick - made.normal)
    faint, marked_in, brain_in = (
        prepared.view.to_canonical(mask) for mask in (change > FAINT * change.max(), made.lesions, made.brain)
    )
    indices = np.array(slices_worth_computing(foreground, Plane.AXIAL, LEAST_AREA))
    weights = np.ones(len(indices))
    if sick:
        weights += 20.0 * made.lesions.any(axis=(0, 1))[indices]
    chosen = r.choice(indices, count, replace=count > len(indices), p=weights / weights.sum())
    frame = SliceFrame.around(foreground, Plane.AXIAL, pixel_spacing(spacing, Plane.AXIAL), size)
    predictor = SliceWisePredictor(Plane.AXIAL, spacing, prepare=prepared.scaling)
    image = predictor.images_of(prepared.scan.voxels, foreground, frame, NEIGHBOUR_MM)

    def fitted(mask: np.ndarray, index: int) -> np.ndarray:
        own = slice_image(mask, Plane.AXIAL, index)[frame.window].astype(np.float32)
        return frame.fit(own[None])[0].numpy() > 0.5

    lesions = np.zeros((count, size, size), np.int16)
    brain = np.zeros((count, size, size), np.float32)
    images = []
    for number, index in enumerate(chosen.tolist()):
        picture = frame.fit(image(index))
        flip = r.random() < 0.5
        images.append(picture.flip(-1) if flip else picture)
        marked = fitted(marked_in, index) & sick
        lesions[number] = ndimage.label(marked)[0]
        if sick:
            near = ndimage.binary_dilation(marked, iterations=4)
            lesions[number][fitted(faint, index) & ~near] = -1
        brain[number] = fitted(brain_in, index) & (picture[0].numpy() > 0)
        if flip:
            lesions[number], brain[number] = lesions[number, :, ::-1].copy(), brain[number, :, ::-1].copy()
    return ShownSlices(torch.stack(images), lesions, brain)
