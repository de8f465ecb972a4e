"""Small scans for the tests of this folder."""

from __future__ import annotations

import numpy as np

AFFINE = np.array([[0.0, -1.5, 0, 19], [1.5, 0, 0, -12], [0, 0, 4, -20], [0, 0, 0, 1]])


def small_head(shape: tuple[int, int, int] = (20, 24, 6), seed: int = 0) -> np.ndarray:
    """An asymmetric blob with a bright spot, as MR shows a head."""
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, size) for size in shape), indexing="ij")
    head = (x**2 + (y * 0.9) ** 2 + z**2 < 0.8) * (300 + 60 * x)
    head += 250 * ((x - 0.3) ** 2 + (y + 0.2) ** 2 + z**2 < 0.05)
    return (head + np.random.default_rng(seed).normal(0, 5, head.shape)).astype(np.float32)
