"""WinCLIP (Jeong et al., CVPR 2023), zero-shot: CLIP's class token looks at every small window of patches.

Followed from the paper: windows by dropping all other patches before the transformer, harmonic averaging of
the windows that cover a patch, harmonic averaging over the scales and the whole image, image score by the
class token.
"""

from __future__ import annotations

from typing import ClassVar, Self

import torch
from torch import Tensor

from medzsad.detectors.base import Prediction
from medzsad.detectors.scoring import gaussian_smooth, upsample
from medzsad.detectors.zero_shot.base import TrainingFreeDetector
from medzsad.detectors.zero_shot.settings import TrainingFreeSettings, WinCLIPSettings

LEAST = 1e-12
"""Probabilities count as at least this in harmonic means, so that one is defined whatever the temperature."""


class WinCLIP(TrainingFreeDetector):
    """Training-free detector with windows of 2x2 and 3x3 patches. Arguments: see the base class.

    Attributes:
        chunk_tokens: tokens that go through the transformer at once at most; bounds memory alone. None for
            all windows of all images at once.
    """

    method: str = "winclip"
    settings_class: ClassVar[type[TrainingFreeSettings]] = WinCLIPSettings
    config: WinCLIPSettings
    chunk_tokens: int | None = 8192

    def window_features(self, tokens: Tensor, grid: tuple[int, int], side: int) -> Tensor:
        """Class features of all windows.

        A window's tokens keep the position embeddings of their places in the image.

        Args:
            tokens: (B, prefix + patches, C), before the first block.
            grid: rows and columns of patches.
            side: of the windows, in patches.

        Returns:
            (B, windows, D), windows row by row, not L2-normalised.
        """
        prefix = tokens.shape[1] - grid[0] * grid[1]
        patches = window_patches(grid, side).to(tokens.device) + prefix
        shared = torch.arange(prefix, device=tokens.device).expand(len(patches), -1)
        index = torch.cat([shared, patches], 1)
        if self.chunk_tokens is None:
            run = self.clip.run_blocks(tokens[:, index].flatten(0, 1), class_only=True)
            return self.clip.class_feature(run.tokens).unflatten(0, (-1, len(index)))
        sequences = torch.cartesian_prod(
            torch.arange(len(tokens), device=tokens.device), torch.arange(len(index), device=tokens.device)
        )
        features = []
        for part in sequences.split(max(1, self.chunk_tokens // index.shape[1])):
            image, window = part.unbind(1)
            run = self.clip.run_blocks(tokens[image[:, None], index[window]], class_only=True)
            features.append(self.clip.class_feature(run.tokens))
        return torch.cat(features).unflatten(0, (len(tokens), len(index)))

    def _prepare_graph(self, source: Self) -> None:
        super()._prepare_graph(source)
        self.chunk_tokens = None  # a graph has no loop over parts of a batch

    def detect(self, inputs: Tensor, texts: Tensor | None = None) -> Prediction:
        """See the base class."""
        clip, grid = self.clip, self.clip.grid(inputs)
        tokens = clip.embed(inputs)
        probability = self.abnormal_probability(
            clip.class_feature(clip.run_blocks(tokens, class_only=True).tokens), texts
        )
        scales = [probability[:, None, None].expand(-1, *grid)]
        for side in self.config.scales:
            windows = self.abnormal_probability(self.window_features(tokens, grid, side), texts)
            scales.append(spread_windows(windows, grid, side))
        maps = upsample(harmonic_mean(torch.stack(scales)), tuple(inputs.shape[-2:]))
        return self.prediction(gaussian_smooth(maps, self.config.smoothing_sigma), probability)


def window_patches(grid: tuple[int, int], side: int) -> Tensor:
    """Which patches each window holds.

    Args:
        grid: rows and columns of patches.
        side: of the windows, in patches; they move by one patch.

    Returns:
        int64 (windows, side * side), indices into the patches, row by row, as are the windows.
    """
    patches = torch.arange(grid[0] * grid[1]).view(grid)
    return patches.unfold(0, side, 1).unfold(1, side, 1).flatten(2).flatten(0, 1)


def spread_windows(scores: Tensor, grid: tuple[int, int], side: int) -> Tensor:
    """Give each patch the harmonic mean of the scores of all windows that cover it.

    Args:
        scores: (B, windows) in [0, 1].
        grid: rows and columns of patches.
        side: of the windows, in patches.

    Returns:
        float32 (B, rows, columns).
    """
    rows, columns = grid[0] - side + 1, grid[1] - side + 1
    inverse = 1 / scores.float().clamp(min=LEAST).unflatten(1, (rows, columns))
    total, count = inverse.new_zeros(scores.shape[0], *grid), inverse.new_zeros(grid)
    for down in range(side):
        for right in range(side):
            total[:, down : down + rows, right : right + columns] += inverse
            count[down : down + rows, right : right + columns] += 1
    return count / total


def harmonic_mean(scores: Tensor) -> Tensor:
    """Harmonic mean over the first dimension of scores (K, ...) in [0, 1]: float32 (...)."""
    return len(scores) / (1 / scores.float().clamp(min=LEAST)).sum(0)
