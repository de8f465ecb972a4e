"""Tensors to scans: MONAI's ``MetaTensor``, whoever loaded it, and plain PyTorch tensors.

Nothing here imports MONAI: a ``MetaTensor`` is known by its ``meta`` and its ``affine``. What a scan is
besides voxels and affine travels in its meta, and so survives transforms and data loaders.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medzsad.errors import BadInput
from medzsad.scans.affines import ASSUMED_AFFINE, display_affine
from medzsad.scans.modality import OF_DICOM, guess_modality
from medzsad.scans.names import stem
from medzsad.scans.scan import FACTS, FILE, Modality, Scan

if TYPE_CHECKING:
    from torch import Tensor

# As MONAI's readers call DICOM tags: PydicomReader by eight digits, ITKReader with a bar.
_MODALITY_TAGS = ("00080060", "0008|0060")
_SERIES_TAGS = ("0020000E", "0020|000e")
# Values of a CT in HU span more than this, from air to tissue; scaled to [0, 1] or standardised they do not.
_SPAN_OF_HU = 20.0
_PIL_8_BIT = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")


def spatial_axes(image: Tensor) -> int:
    """Return how many of the last axes are space: all but the first, which holds channels.

    Two exceptions have no channels: two axes, and three of a volume that MONAI has loaded and
    ``EnsureChannelFirst`` has not seen.
    """
    shape = getattr(image, "meta", {}).get("spatial_shape", ())
    if image.ndim == 2 or (image.ndim == 3 and len(shape) == 3 and len(image) > 1):
        return image.ndim
    return image.ndim - 1


def shows_colour(image: Tensor, modality: Modality | str | None = None) -> bool:
    """Whether the channels are red, green and blue (and alpha, of a 2D image), not images of their own.

    They are in 2D images of three or four channels, and in volumes of three whose modality, given or in the
    meta, is a colour image's or ultrasound's. Channels of other volumes are several contrasts (T1, T2, ...).
    """
    axes = spatial_axes(image)
    channels = image.shape[0] if axes < image.ndim else 1
    if axes == 2:
        return channels in (3, 4)
    declared = modality or _declared(getattr(image, "meta", {}))[0]
    return channels == 3 and str(declared).lower() in (Modality.RGB, Modality.US)


def scan_of_tensor(image: Tensor, *, modality: Modality | str | None = None) -> Scan:
    """Make a scan of a tensor: one volume, or one 2D image.

    Args:
        image: (C, X, Y, Z), (C, X, Y), (X, Y), or (X, Y, Z) as MONAI's ``LoadImage`` gives it; any real type
            and device. C is 1, or 3 where :func:`shows_colour`. Of a ``MetaTensor`` the affine is taken
            (voxel to RAS+ mm), and of its meta the file's name, the modality and what
            :func:`~medzsad.scans.scan.meta_of` noted. The affine of a 2D image that was read as the identity
            (PNG, JPEG) leads to the image's own columns and rows, not into a patient. Of a plain tensor
            voxels of 1 mm along right, anterior and superior are assumed; of a plain 2D one X is the column
            and Y the row, as MONAI reads images.
        modality: that the caller knows; it decides on colours, and is not otherwise applied here.

    Returns:
        The scan; its modality is the meta's, or guessed from the values.

    Raises:
        BadInput: on other shapes, several contrasts, or an affine that maps to no volume.
    """
    meta = getattr(image, "meta", {})
    facts = json.loads(meta[FACTS]) if FACTS in meta else {}
    axes = spatial_axes(image)
    voxels = _voxels(image, axes, shows_colour(image, modality))
    order = facts.get("order", ())
    if len(order) == voxels.ndim:
        voxels = np.ascontiguousarray(voxels.transpose(order)).transpose(np.argsort(order))
    affine, is_image, notes = _affine(image, axes)
    declared, source = _declared(meta)
    colour = voxels.ndim == 4
    if colour and declared not in (None, Modality.US):
        declared = Modality.RGB
    elif declared is Modality.RGB and not colour:
        declared = None
    if declared is Modality.CT and np.ptp(voxels) < _SPAN_OF_HU:
        declared = None
        notes += ("It was a CT, but its values are no HU any more: they are taken as they are.",)
    details = dict(facts.get("details", {"format": type(image).__name__}))
    series = next((_text(meta[tag]) for tag in _SERIES_TAGS if tag in meta), None)
    if series and not facts:
        details["series_uid"] = series
    stored = [0, 255] if meta.get("mode") in _PIL_8_BIT else details.pop("range", None)
    levels = display_levels(voxels, stored, colour)
    if levels is not None and (is_image or colour or "range" in facts.get("details", {})):
        details["range"] = levels
    guessed = guess_modality(voxels)
    if is_image and not colour:
        guessed = Modality.GREY
    file = _text(meta.get(FILE)) or "<tensor>"
    path = Path(file)
    return Scan(
        voxels=voxels,
        affine=affine,
        modality=declared or guessed,
        modality_source=source if declared else "guessed",
        name=facts.get("name") or ("tensor" if file.startswith("<") else stem(path)),
        source=path,
        is_2d=voxels.shape[2] == 1 and bool(facts.get("is_2d", is_image)),
        has_geometry=facts.get("has_geometry", not (is_image or _is_assumed(image))),
        header=facts.get("header", {}),
        notes=(*facts.get("notes", ()), *notes),
        details=details,
    )


def _voxels(image: Tensor, axes: int, colour: bool) -> np.ndarray:
    """float32 (X, Y, Z) or, of colours, (X, Y, Z, 3)."""
    file = _text(getattr(image, "meta", {}).get(FILE)) or "<tensor>"
    if axes not in (2, 3) or not image.numel() or image.is_complex():
        shape = " x ".join(map(str, image.shape))
        raise BadInput(
            f"{file} is no scan, but {shape} values of {image.dtype}; give a tensor (C, X, Y, Z) or "
            "(C, X, Y) without the batch, or use medzsad.monai.AnomalyInferer."
        )
    values = image.detach().cpu()
    array = (values if axes < image.ndim else values[None]).float().numpy()
    channels = len(array)
    if channels == 2 and getattr(image, "meta", {}).get("mode") == "LA":  # alpha says nothing of the patient
        channels, array = 1, array[:1]
    if channels != 1 and not colour:
        raise BadInput(
            f"{file} has {channels} channels that are no colours; choose one (image[0:1]), or use "
            "medzsad.monai.AnomalyInferer, which takes the mean of their maps."
        )
    array = np.asarray(array[0] if not colour else np.moveaxis(array[:3], 0, -1))
    if colour and axes == 2 and bool((array[..., :1] == array[..., 1:]).all()):
        array = array[..., 0]
    return array if axes == 3 else array[:, :, None]


def _affine(image: Any, axes: int) -> tuple[np.ndarray, bool, tuple[str, ...]]:
    """Affine to RAS+ mm of a tensor or MetaTensor, whether it has no place in a patient, and notes."""
    if _is_assumed(image):
        if axes == 2:
            return display_affine(), True, ()
        return np.eye(4), False, (ASSUMED_AFFINE,)
    affine = np.asarray(image.affine.cpu(), dtype=np.float64)
    if affine.shape == (3, 3):  # MONAI's, of two axes
        wide = np.eye(4)
        wide[:2, :2], wide[:2, 3] = affine[:2, :2], affine[:2, 2]
        affine = wide
    if affine.shape != (4, 4) or not np.isfinite(affine).all() or abs(np.linalg.det(affine)) < 1e-12:
        file = _text(image.meta.get(FILE)) or "<MetaTensor>"
        raise BadInput(f"{file} has an affine that maps to no volume; give one of (4, 4), voxel to RAS+ mm.")
    if axes == 3:
        return affine, False, ()
    # PILReader gives its mode, and no affine; the present one may hold flips and turns since.
    original = np.asarray(image.meta.get("original_affine", affine), dtype=np.float64)
    is_image = "mode" in image.meta or np.array_equal(original, np.eye(len(original)))
    return (display_affine() @ affine if is_image else affine), is_image, ()


def _is_assumed(image: Tensor) -> bool:
    return not hasattr(image, "affine")


def _declared(meta: dict[str, Any]) -> tuple[Modality | None, str]:
    """Return the modality that the meta states, and from where; None where the values must tell."""
    if FACTS in meta:
        facts = json.loads(meta[FACTS])
        guessed = facts["modality_source"] == "guessed" and not facts["is_2d"]
        return (None if guessed else Modality(facts["modality"])), facts["modality_source"]
    text = next((_text(meta[tag]) for tag in _MODALITY_TAGS if tag in meta), "")
    return (OF_DICOM.get(text.strip(), Modality.GREY) if text else None), "dicom"


def _text(value: Any) -> str:
    """Return a tag's first value: as text, in a list, or as DICOM's JSON has it."""
    if isinstance(value, dict):
        value = value.get("Value")
    while isinstance(value, list | tuple):
        value = value[0] if value else None
    return "" if value is None else str(value)


def display_levels(
    voxels: np.ndarray, stored: Sequence[float] | None, colour: bool
) -> Sequence[float] | None:
    """Return the values of black and white of an image made for display; None: its percentiles decide.

    Args:
        voxels: any shape, not empty.
        stored: the levels that the file's data type has, if known; the values may have been scaled since.
        colour: whether the last axis is red, green and blue, for which there are no percentiles.
    """
    low, high = float(voxels.min()), float(voxels.max())
    if low >= 0 and high <= 1 and np.any(voxels % 1):
        return [0, 1]
    if stored is not None and stored[0] <= low and high <= stored[1]:
        return stored
    if not colour:
        return None
    return [0, 255] if low >= 0 and high <= 255 else [low, high]
