"""Random changes of training images and their masks, the same for the same seed, epoch and index.

Everything is drawn from one generator in a fixed order, so that a resumed training, or one with another
number of worker processes, sees the same images; and switching one change on does not alter the others.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from medzsad.errors import BadInput
from medzsad.settings import Settings

Handle = TypeVar("Handle")


class Example(NamedTuple):
    """One training image.

    Attributes:
        image: float32 (3, H, W) in [0, 1], not normalised.
        mask: (H, W) in {0, 1}, of any dtype.
        label: 1 anomalous, 0 normal.
        has_mask: False if only the label is known; the mask is then zeros.
    """

    image: Tensor
    mask: Tensor
    label: int
    has_mask: bool = True


class Augmentation(Settings):
    """What may happen to an image; by default nothing.

    Attributes:
        mosaic: probability that four random images of its class, put together, take an image's place, as
            AdaCLIP's published training does at 0.2 on MVTec AD.
        mosaic_label: a mosaic's label: ``"drawn"`` keeps that of the image whose place it takes, whatever the
            four show, as published; ``"any"`` calls it anomalous if one of the four is.
        flip_horizontal, flip_vertical: probabilities of mirroring left-right and top-bottom.
        rotation: largest angle in degrees, either way.
        scale: largest relative change of size; 0.1 is 0.9 to 1.1.
        brightness: largest relative change of all intensities; black stays black.
        contrast: largest relative change of the distance to the image's mean.

    Raises:
        BadInput: on impossible values.
    """

    mosaic: float = 0.0
    mosaic_label: Literal["drawn", "any"] = "drawn"
    flip_horizontal: float = 0.0
    flip_vertical: float = 0.0
    rotation: float = 0.0
    scale: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0

    def __post_init__(self) -> None:
        limits = {"rotation": 180.0, "scale": 0.9}
        for name, value in vars(self).items():
            limit = limits.get(name, 1.0)
            if isinstance(value, float) and not 0 <= value <= limit:
                raise BadInput(f"augmentation {name} must be a number from 0 to {limit:g}, not {value!r}")

    @property
    def variants(self) -> int | None:
        """How many different images one image can become; None if they are not countable."""
        if self.mosaic or self.rotation or self.scale or self.brightness or self.contrast:
            return None
        return math.prod(2 for rate in (self.flip_horizontal, self.flip_vertical) if 0 < rate < 1)


def generator_for(seed: int, epoch: int, index: int) -> torch.Generator:
    """Return the generator of one image in one epoch, on the CPU."""
    digest = hashlib.sha256(f"{seed} {epoch} {index}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def augment(
    example: Example,
    settings: Augmentation,
    generator: torch.Generator,
    *,
    mates: Sequence[Handle] = (),
    load: Callable[[Handle], Example] | None = None,
    resize: Callable[[Example], Example] | None = None,
) -> Example:
    """Change an image and its mask alike.

    Args:
        example: the image. It is not changed in place.
        settings: what may happen.
        generator: from :func:`generator_for`.
        mates: all images of its class, itself among them, by whatever name ``load`` knows them; needed for
            mosaics.
        load: gives a mate at its own size; called for mosaics only, for four mates.
        resize: brings a mosaic to the size of ``example``.

    Returns:
        An image of the same size. An anomalous image that lost all that was marked in it (turned or
        scaled out of sight) counts as normal.

    Raises:
        ValueError: if mosaics are wanted and ``mates``, ``load`` or ``resize`` is missing.
    """
    draws = torch.rand(7, generator=generator).tolist()
    mosaic_draw, horizontal, vertical, angle, size, brightness, contrast = draws
    if settings.mosaic:
        if load is None or resize is None or not mates:
            raise ValueError("mosaics need the images of the class, and how to load and resize them")
        if mosaic_draw < settings.mosaic:
            order = torch.randperm(max(4, len(mates)), generator=generator)[:4]
            tiles = [load(mates[int(i) % len(mates)]) for i in order]  # repeated only if they are too few
            drawn, example = example, resize(mosaic(tiles))
            if settings.mosaic_label == "drawn":
                example = example._replace(label=drawn.label)
    image, mask, label, has_mask = example
    sides = [-1] * (horizontal < settings.flip_horizontal) + [-2] * (vertical < settings.flip_vertical)
    if sides:
        image, mask = image.flip(sides), mask.flip(sides)
    if settings.rotation or settings.scale:
        turn = math.radians(settings.rotation) * (2 * angle - 1)
        zoom = 1 + settings.scale * (2 * size - 1)
        was_marked = bool((mask > 0).any())
        image, mask = turn_and_zoom(image, mask, turn, zoom)
        if was_marked and not bool((mask > 0).any()):
            label = 0
    if settings.contrast:
        mean = image.mean()
        image = mean + (1 + settings.contrast * (2 * contrast - 1)) * (image - mean)
    if settings.brightness:
        image = image * (1 + settings.brightness * (2 * brightness - 1))
    if settings.contrast or settings.brightness:
        image = image.clamp(0, 1)
    return Example(image, mask, label, has_mask)


def mosaic(tiles: Sequence[Example]) -> Example:
    """Put four images into two rows of two, as AdaCLIP trains with on MVTec AD.

    Args:
        tiles: top left, top right, bottom left, bottom right. Others are brought to the first one's size (the
            published code cuts them off, or leaves black; in MVTec AD a class has one size).

    Returns:
        The mosaic, of twice the first one's height and width: anomalous if one of the four is, with a mask if
        all four have theirs.
    """
    size = tiles[0].mask.shape
    images, masks = [], []
    for image, mask, _, _ in tiles:
        if mask.shape != size:
            image = F.interpolate(image[None], size, mode="bicubic", antialias=True, align_corners=False)[0]
            mask = F.interpolate(mask[None, None].float(), size, mode="nearest-exact")[0, 0].to(mask.dtype)
        images.append(image.clamp(0, 1))
        masks.append(mask)
    image, mask = (
        torch.cat([torch.cat(four[:2], -1), torch.cat(four[2:], -1)], -2) for four in (images, masks)
    )
    return Example(image, mask, max(tile.label for tile in tiles), all(tile.has_mask for tile in tiles))


def turn_and_zoom(image: Tensor, mask: Tensor, turn: float, zoom: float) -> tuple[Tensor, Tensor]:
    """Turn about the centre and enlarge; beyond the border image and mask go on mirrored.

    Args:
        image: float32 (3, H, W), interpolated bilinearly.
        mask: (H, W), of any dtype; the nearest pixel is taken.
        turn: angle in radians.
        zoom: factor; above 1 enlarges.
    """
    height, width = image.shape[-2:]
    cos, sin = math.cos(turn) / zoom, math.sin(turn) / zoom
    # In units of half the height and half the width, in which grid_sample counts.
    matrix = torch.tensor([[cos, -sin * height / width, 0.0], [sin * width / height, cos, 0.0]])
    grid = F.affine_grid(matrix[None].to(image.device), [1, 1, height, width], align_corners=False)
    turned = F.grid_sample(
        image[None], grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )[0]
    marks = F.grid_sample(
        mask[None, None].float(), grid, mode="nearest", padding_mode="reflection", align_corners=False
    )[0, 0]
    return turned.clamp(0, 1), marks.to(mask.dtype)
