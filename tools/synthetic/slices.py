"""Normal slices of redistributable real scans, as a look of their own."""

from __future__ import annotations

import math
import os
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from synthetic.canvas import Canvas, step
from synthetic.fields import Random


def real(r: Random, n: int, slices: Tensor) -> Canvas:
    """Crops, turns and stretches of real normal slices (M, S0, S0) in [0, 1]."""
    chosen = slices[r.pick(n, len(slices))].float() / 255
    angle = (r.uniform(n, -1, 1) * 0.3).flatten()
    turn = (r.pick(n, 4).float() * (math.pi / 2)) * r.coin(n, 0.15).flatten()
    angle = angle + turn
    zoom = r.uniform(n, 0.65, 1.15).flatten()
    stretch = r.uniform(n, 0.88, 1.12).flatten()
    flip = 1 - 2 * r.coin(n, 0.5).flatten()
    shift = 0.15 * r.normal(n, 2)
    row_1 = torch.stack([flip * zoom * stretch * angle.cos(), -zoom * angle.sin(), shift[:, 0]], 1)
    row_2 = torch.stack([flip * zoom * stretch * angle.sin(), zoom * angle.cos(), shift[:, 1]], 1)
    grid = F.affine_grid(torch.stack([row_1, row_2], 1), [n, 1, r.size, r.size], align_corners=False)
    grid = grid + 0.03 * torch.stack([r.field(n, 3), r.field(n, 3)], -1)
    grey = F.grid_sample(chosen[:, None], grid, align_corners=False)[:, 0].clamp(0, 1)
    inside = step(F.avg_pool2d(grey[:, None], 7, 1, 3)[:, 0] - 0.12, 0.02)
    return Canvas(grey, inside)


def load_slices(root: str | os.PathLike[str] | None, size: int = 192) -> Tensor | None:
    """Return normal slices of the redistributable real scans below ``root``/data, for pasting lesions.

    Reads only ``dicom_head_ct``, ``dicom_brain_mr`` and the CT and MR of ``body_ct_small``.

    Args:
        root: the folder that holds ``data/``; None, or one without the three folders, gives None.
        size: side in pixels that the slices are padded and resized to.

    Returns:
        uint8 (M, size, size), or None.
    """
    if root is None or not (Path(root) / "data").is_dir():
        return None
    import nibabel as nib
    import numpy as np
    import pydicom

    data = Path(root) / "data"
    planes: list[Tensor] = []

    def add(array: np.ndarray, low: float, high: float) -> None:
        image = ((torch.from_numpy(np.asarray(array, dtype="float32")) - low) / (high - low)).clamp(0, 1)
        rows, columns = (image > 0.06).any(1).nonzero()[:, 0], (image > 0.06).any(0).nonzero()[:, 0]
        if len(rows) < 24 or len(columns) < 24:
            return
        image = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        height, width = image.shape
        side = max(height, width)
        image = F.pad(
            image,
            ((side - width) // 2, (side - width + 1) // 2, (side - height) // 2, (side - height + 1) // 2),
        )
        image = F.interpolate(image[None, None], (size, size), mode="bilinear", antialias=True)[0, 0]
        planes.append((image * 255).round().to(torch.uint8))

    for path in sorted((data / "dicom_head_ct").glob("*.dcm")):
        file = pydicom.dcmread(path)
        array = file.pixel_array * float(file.RescaleSlope) + float(file.RescaleIntercept)
        add(array, 0, 80)
        add(array, -100, 300)
    volumes = []
    mr = [pydicom.dcmread(path) for path in sorted((data / "dicom_brain_mr").glob("*.dcm"))]
    if mr:
        mr.sort(key=lambda file: float(file.InstanceNumber))
        volumes.append((np.stack([file.pixel_array for file in mr]), False, (0,)))  # thick slices: one plane
    for name, is_ct in (
        ("example_ct.nii.gz", True),
        ("example_ct_sm.nii.gz", True),
        ("example_mr_sm.nii.gz", False),
    ):
        for path in sorted((data / "body_ct_small").rglob(name)):
            volumes.append((np.asarray(nib.load(path).dataobj), is_ct, (0, 1, 2)))
    for volume, is_ct, axes in volumes:
        windows = (
            [(-160, 240), (-1000, 300)] if is_ct else [tuple(np.percentile(volume[volume > 0], (1, 99.5)))]
        )
        for axis in axes:
            if volume.shape[axis] < 24:
                continue
            chosen = range(volume.shape[axis] // 6, volume.shape[axis] * 5 // 6, 1 if len(axes) == 1 else 3)
            for index in chosen:
                plane = np.take(volume, index, axis)
                plane = plane if len(axes) == 1 else np.rot90(plane)
                if min(plane.shape) >= 48:
                    for low, high in windows:
                        add(plane, low, high)
    return torch.stack(planes) if planes else None
