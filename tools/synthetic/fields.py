"""Seeded random numbers and smooth noise for a batch of images."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class Random:
    """Per-image random numbers from one seeded generator."""

    def __init__(self, seed: int, size: int) -> None:
        self.source = torch.Generator(torch.get_default_device()).manual_seed(seed)
        self.size = size
        line = torch.linspace(-1, 1, size)
        self.y, self.x = torch.meshgrid(line, line, indexing="ij")

    def uniform(self, count: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Uniform numbers (N, 1, 1)."""
        return low + (high - low) * torch.rand(count, 1, 1, generator=self.source)

    def coin(self, count: int, chance: float) -> Tensor:
        """1.0 with probability ``chance``, else 0.0: (N, 1, 1)."""
        return (torch.rand(count, 1, 1, generator=self.source) < chance).float()

    def normal(self, *shape: int) -> Tensor:
        """Return standard normal numbers."""
        return torch.randn(*shape, generator=self.source)

    def field(self, count: int, cells: int | tuple[int, int]) -> Tensor:
        """Smooth noise (N, S, S) of about unit variance with ``cells`` bumps along a side (down, across)."""
        down, across = (cells, cells) if isinstance(cells, int) else cells
        if min(down, across) >= self.size:
            return self.normal(count, self.size, self.size)
        low = self.normal(count, down + 4, across + 4)
        first, second = torch.rand(2, generator=self.source).tolist()  # where the knots begin
        rows, columns = spline_matrix(down, self.size, first), spline_matrix(across, self.size, second)
        return 2.09 * (rows @ low @ columns.T)

    def fractal(self, count: int, cells: int, octaves: int = 3, decay: float = 0.55) -> Tensor:
        """Sum of noise fields, each twice as fine and ``decay`` as strong as the last: (N, S, S)."""
        total, power = torch.zeros(count, self.size, self.size), 0.0
        for octave in range(octaves):
            weight = decay**octave
            total = total + weight * self.field(count, cells * 2**octave)
            power += weight**2
        return total / math.sqrt(power)

    def pick(self, count: int, choices: int) -> Tensor:
        """Random integers below ``choices``: int64 (N,)."""
        return torch.randint(choices, (count,), generator=self.source)


def spline_matrix(cells: int, size: int, offset: float) -> Tensor:
    """Cubic B-spline weights (S, cells + 4): ``size`` points read off knots shifted by ``offset``."""
    position = torch.linspace(0, cells, size).view(-1, 1) + offset + 1
    distance = (position - torch.arange(cells + 4)).abs()
    near = 2 / 3 - distance.square() + distance**3 / 2
    far = (2 - distance).clamp_min(0) ** 3 / 6
    return torch.where(distance < 1, near, far)
