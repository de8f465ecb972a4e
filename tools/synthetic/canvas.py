"""What the looks share: the canvas, opacity helpers, body coordinates, blobs, blur."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from synthetic.fields import Random


class Batch(NamedTuple):
    """One generated batch.

    Attributes:
        images: float32 (B, 3, S, S) in [0, 1].
        masks: float32 (B, S, S), 1 inside a lesion.
        labels: int64 (B,), 1 for an image with a lesion: 1 exactly where the mask has a pixel.
    """

    images: Tensor
    masks: Tensor
    labels: Tensor


@dataclass
class Canvas:
    """Clean images under way.

    Attributes:
        grey: (N, S, S), about [0, 1].
        inside: (N, S, S) in [0, 1], where lesions may be.
        tint: (N, 3, S, S) factors of the colour channels, or None.
        view: (N, S, S) in [0, 1], what a frame leaves visible, or None.
        drawn: (N, 3, S, S), what is drawn over the finished image, or None.
        cover: (N, S, S) in [0, 1], opacity of ``drawn``.
        ground: (N, 1, 1), grey behind an object, or None.
    """

    grey: Tensor
    inside: Tensor
    tint: Tensor | None = None
    view: Tensor | None = None
    drawn: Tensor | None = None
    cover: Tensor | None = None
    ground: Tensor | None = None

    def __post_init__(self) -> None:
        if self.view is None:
            self.view = torch.ones_like(self.grey)

    def take(self, chosen: Tensor) -> Canvas:
        """Return a copy of the images with these indices."""
        return replace(self, **{k: v[chosen] for k, v in vars(self).items() if v is not None})

    def put(self, chosen: Tensor, part: Canvas) -> None:
        """Brings grey values and colours of :meth:`take` back."""
        self.grey = self.grey.index_copy(0, chosen, part.grey)
        self.tint = self.tint.index_copy(0, chosen, part.tint)


def step(x: Tensor, softness: float | Tensor = 0.03) -> Tensor:
    """Return a soft step from 0 (x < 0) to 1 (x > 0)."""
    return torch.sigmoid(x / softness)


def blend(base: Tensor, value: Tensor, alpha: Tensor) -> Tensor:
    """``value`` over ``base`` with opacity ``alpha``."""
    return base + (value - base) * alpha


def sample(fields: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Read fields (N, S, S) at coordinates u, v (N, S, S) in [-1, 1]."""
    grid = torch.stack([u, v], -1)
    return F.grid_sample(fields[:, None], grid, padding_mode="reflection", align_corners=True)[:, 0]


def sample_at(values: Tensor, centre: Tensor) -> Tensor:
    """Values (N, S, S) at one pixel index each: (N, 1, 1)."""
    return values.flatten(1).gather(1, centre[:, None]).unsqueeze(-1)


class Frame(NamedTuple):
    """Body coordinates (N, S, S): the body is the unit disc in u, v; w is for fields: |u| if symmetric."""

    u: Tensor
    v: Tensor
    w: Tensor


def make_frame(r: Random, n: int, *, symmetric: float, cropped: float, tilt: float) -> Frame:
    """Random placement of a body in the image.

    Args:
        r: the random numbers.
        n: images.
        symmetric: chance of left-right symmetry.
        cropped: chance that the body touches the image's border (as after cropping to the foreground).
        tilt: largest rotation in radians.
    """
    is_cropped = r.coin(n, cropped)
    scale = blend(r.uniform(n, 1.05, 1.55), r.uniform(n, 0.96, 1.06), is_cropped)
    stretch = r.uniform(n, 0.8, 1.0) ** r.coin(n, 0.8)
    tall = r.coin(n, 0.65)
    angle = r.uniform(n, -1, 1) * tilt * r.uniform(n)
    shift_x, shift_y = (r.uniform(n, -0.12, 0.12) * (1.1 - is_cropped) for _ in range(2))
    x = (r.x - shift_x) * scale
    y = (r.y - shift_y) * scale
    u = x * angle.cos() + y * angle.sin()
    v = y * angle.cos() - x * angle.sin()
    u, v = (
        u / blend(torch.ones_like(stretch), stretch, tall),
        v / blend(stretch, torch.ones_like(stretch), tall),
    )
    # No body is exactly symmetric: a gentle warp.
    u = u + 0.03 * r.uniform(n) * r.field(n, 3)
    v = v + 0.03 * r.uniform(n) * r.field(n, 3)
    w = blend(u, 2 * u.abs() - 1, r.coin(n, symmetric))
    return Frame(u, v, w)


def tissue_map(r: Random, n: int, frame: Frame, kinds: int, cells: int, sharp: float = 9.0) -> Tensor:
    """Soft tissue labels (N, kinds, S, S): softmax over noise in body coordinates plus a concentric prior."""
    radius = (frame.u.square() + frame.v.square()).sqrt()
    out = []
    for _ in range(kinds):
        noise = sample(r.fractal(n, cells, 3), frame.w, frame.v)
        ring = -((radius - r.uniform(n, 0, 1.1)) / r.uniform(n, 0.15, 0.6)).square()
        out.append(noise + 0.8 * ring)
    return (sharp * torch.stack(out, 1)).softmax(1)


def blob(
    r: Random,
    n: int,
    frame: Frame,
    *,
    u: tuple[float, float],
    v: tuple[float, float],
    size: tuple[float, float],
    twin: bool,
    soft: float = 0.12,
) -> Tensor:
    """Opacity (N, S, S) of one wobbly ellipse per image; ``twin`` mirrors it across the middle line."""
    across = frame.u.abs() if twin else frame.u
    angle = r.uniform(n, -1.2, 1.2)
    a, b = r.uniform(n, *size), r.uniform(n, *size)
    du, dv = across - r.uniform(n, *u), frame.v - r.uniform(n, *v)
    p, q = (du * angle.cos() + dv * angle.sin()) / a, (dv * angle.cos() - du * angle.sin()) / b
    wobble = 0.15 * sample(r.field(n, 6), frame.w, frame.v)
    return step(1 - (p.square() + q.square()).sqrt() + wobble, soft)


def texture(r: Random, n: int, strength: float = 1.0) -> Tensor:
    """Fine noise (N, S, S) of random grain and strength (up to 0.06)."""
    fine = r.field(n, r.size // 2)
    coarse = r.fractal(n, int(r.pick(1, 12)) + 8, 2)
    return strength * (0.04 * r.uniform(n).square() * fine + 0.05 * r.uniform(n) * coarse)


def blur(images: Tensor, sigma: Tensor, reach: int = 4) -> Tensor:
    """Gaussian blur of (N, C, S, S) with its own ``sigma`` (N, 1, 1) in pixels per image."""
    n, channels, *_ = images.shape
    offsets = torch.arange(-reach, reach + 1).float().view(1, -1)
    kernel = torch.exp(-0.5 * (offsets / sigma.view(n, 1).clamp_min(0.05)).square())
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0)
    flat = images.reshape(1, n * channels, *images.shape[-2:])
    flat = F.conv2d(flat, kernel.view(-1, 1, 1, 2 * reach + 1), padding=(0, reach), groups=n * channels)
    flat = F.conv2d(flat, kernel.view(-1, 1, 2 * reach + 1, 1), padding=(reach, 0), groups=n * channels)
    return flat.reshape(images.shape)


def box(values: Tensor, reach: int) -> Tensor:
    """Means of (N, S, S) over squares of ``2 * reach + 1`` pixels; beyond the border counts as 0."""
    across = F.avg_pool2d(values[:, None], (1, 2 * reach + 1), 1, (0, reach))
    return F.avg_pool2d(across, (2 * reach + 1, 1), 1, (reach, 0))[:, 0]


def visible(mask: Tensor, changed: Tensor) -> Tensor:
    """Return the part of ``mask`` (N, S, S) around which at least two fifths of it are ``changed`` (bool)."""
    reach = max(2, mask.shape[-1] // 32)
    return mask * (box(mask * changed, reach) > 0.4 * box(mask, reach)) * (box(mask, reach) > 0)
