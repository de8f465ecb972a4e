"""Random changes of training images and their masks, the same for the same seed, epoch and index.

Everything is drawn from one generator in a fixed order, so that a resumed training, or one with another
number of worker processes, sees the same images; and switching one change on does not alter the others.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from medzsad.errors import BadInput

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


@dataclass(frozen=True)
class Augmentation:
    """What may happen to an image; by default nothing.

    Attributes:
        mosaic: probability of a mosaic of the image and three others of its class (AdaCLIP: 0.2 on MVTec AD).
        flip_horizontal, flip_vertical: probabilities of mirroring left-right and top-bottom.
        rotation: largest angle in degrees, either way.
        scale: largest relative change of size; 0.1 is 0.9 to 1.1.
        brightness: largest relative change of all intensities; black stays black.
        contrast: largest relative change of the distance to the image's mean.

    Raises:
        BadInput: on impossible values.
    """

    mosaic: float = 0.0
    flip_horizontal: float = 0.0
    flip_vertical: float = 0.0
    rotation: float = 0.0
    scale: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0

    def __post_init__(self) -> None:
        limits = {"rotation": 180.0, "scale": 0.9}
        for name in self.__dataclass_fields__:
            value, limit = getattr(self, name), limits.get(name, 1.0)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= limit:
                raise BadInput(f"augmentation {name} must be a number from 0 to {limit:g}, not {value!r}")

    @property
    def variants(self) -> int | None:
        """How many different images one image can become; None if they are not countable."""
        if self.mosaic or self.rotation or self.scale or self.brightness or self.contrast:
            return None
        return math.prod(2 for rate in (self.flip_horizontal, self.flip_vertical) if 0 < rate < 1)


def generator_for(seed: int, epoch: int, index: int) -> torch.Generator:
    """The generator of one image in one epoch, on the CPU."""
    digest = hashlib.sha256(f"{seed} {epoch} {index}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def augment(
    example: Example,
    settings: Augmentation,
    generator: torch.Generator,
    *,
    mates: Sequence[Handle] = (),
    load: Callable[[Handle], Example] | None = None,
) -> Example:
    """Changes an image and its mask alike.

    Args:
        example: the image. It is not changed in place.
        settings: what may happen.
        generator: from :func:`generator_for`.
        mates: the other images of its class, by whatever name ``load`` knows them; needed for mosaics.
        load: gives a mate, of any size; called for mosaics only, for three mates.

    Returns:
        An image of the same size. An anomalous image that lost all that was marked in it (turned or
        scaled out of sight) counts as normal.

    Raises:
        ValueError: if mosaics are wanted and there is no ``load``.
    """
    draws = torch.rand(7, generator=generator).tolist()
    mosaic_draw, horizontal, vertical, angle, size, brightness, contrast = draws
    if settings.mosaic and load is None:
        raise ValueError("mosaics need the other images of the class")
    if mosaic_draw < settings.mosaic and mates:
        order = torch.randperm(max(3, len(mates)), generator=generator)[:3]
        place = int(torch.randint(4, (), generator=generator))
        tiles = [load(mates[int(i) % len(mates)]) for i in order]  # with repeats only if there are too few
        tiles.insert(place, example)
        example = mosaic(tiles, tuple(example.image.shape[-2:]))
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


def mosaic(tiles: Sequence[Example], size: tuple[int, int]) -> Example:
    """Four images in two rows of two, as AdaCLIP trains with on MVTec AD.

    Args:
        tiles: four images of any size: top left, top right, bottom left, bottom right.
        size: height and width of the whole.

    Returns:
        The mosaic: anomalous if one of the four is, with a mask if all four have theirs.
    """
    heights, widths = ([side // 2, side - side // 2] for side in size)
    image = tiles[0].image.new_empty((tiles[0].image.shape[0], *size))
    mask = tiles[0].mask.new_zeros(size)
    for number, tile in enumerate(tiles):
        row, column = divmod(number, 2)
        rows = slice(0, heights[0]) if row == 0 else slice(heights[0], None)
        columns = slice(0, widths[0]) if column == 0 else slice(widths[0], None)
        shape = (heights[row], widths[column])
        smaller = F.interpolate(
            tile.image[None], shape, mode="bilinear", antialias=True, align_corners=False
        )[0]
        image[:, rows, columns] = smaller.clamp(0, 1)
        marks = F.interpolate(tile.mask[None, None].float(), shape, mode="nearest-exact")[0, 0]
        mask[rows, columns] = marks.to(mask.dtype)
    return Example(image, mask, max(tile.label for tile in tiles), all(tile.has_mask for tile in tiles))


def turn_and_zoom(image: Tensor, mask: Tensor, turn: float, zoom: float) -> tuple[Tensor, Tensor]:
    """Turns about the centre and enlarges; beyond the border image and mask go on mirrored.

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
