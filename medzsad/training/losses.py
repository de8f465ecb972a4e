"""The losses that AnomalyCLIP and AdaCLIP train with, on probabilities; always computed in float32.

Formulas are those of both methods' published implementations (Lin et al., ICCV 2017, for the focal loss;
Milletari et al., 3DV 2016, for Dice), including where they smooth.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from monai.losses import DiceLoss
from torch import Tensor, nn

BALANCED = "balanced"
DICE = ("image", "rows")
"""What Dice is computed of, see :class:`BinaryDiceLoss`."""


class FocalLoss(nn.Module):
    """``-alpha_t (1 - q)^gamma log q``, averaged over everything, with a smoothed probability ``q``.

    With ``p`` the probability of the true class and ``r`` that of the other, ``q = (1 - s) p + s r + s``,
    which is never below ``s`` and reaches 1 at ``p = 1``.

    Args:
        gamma: how much less the easy pixels count; 0 (cross-entropy), or at least 1.
        alpha: None to weight both classes by 1, as published; a pair (normal, abnormal), which is scaled to
            sum to 1; or ``"balanced"``, with which both classes that occur weigh the same in sum, whatever
            their number of pixels.
        smooth: ``s``, in [0, 0.5).

    Raises:
        ValueError: on impossible arguments.
    """

    def __init__(
        self,
        gamma: float = 2.0,
        alpha: tuple[float, float] | str | None = None,
        smooth: float = 1e-5,
    ) -> None:
        super().__init__()
        if gamma != 0 and not gamma >= 1:  # between 0 and 1 the gradient at a certain pixel is infinite
            raise ValueError(f"gamma must be 0 or at least 1, not {gamma}")
        if not 0 <= smooth < 0.5:
            raise ValueError(f"smooth must lie in [0, 0.5), not {smooth}")
        if isinstance(alpha, str):
            if alpha != BALANCED:
                raise ValueError(f"alpha {alpha!r} is neither a pair of weights nor {BALANCED!r}")
        elif alpha is not None and not (len(alpha) == 2 and min(alpha) >= 0 and sum(alpha) > 0):
            raise ValueError(f"alpha must be two weights of at least 0, not {alpha}")
        self.gamma, self.alpha, self.smooth = gamma, alpha, smooth

    def forward(self, probabilities: Tensor, target: Tensor) -> Tensor:
        """Return the loss.

        Args:
            probabilities: (B, 2, ...) of normal and abnormal, summing to 1.
            target: (B, ...) in {0, 1}, 1 abnormal.

        Returns:
            float32 scalar.

        Raises:
            ValueError: if the shapes do not go together.
        """
        if probabilities.shape[1] != 2 or target.shape != probabilities[:, 0].shape:
            shapes = f"{tuple(probabilities.shape)} and {tuple(target.shape)}"
            raise ValueError(f"probabilities and target do not go together: {shapes}")
        with torch.autocast(probabilities.device.type, enabled=False):
            normal, abnormal = probabilities.float().unbind(1)
            is_abnormal = target > 0.5
            true = torch.where(is_abnormal, abnormal, normal)
            other = torch.where(is_abnormal, normal, abnormal)
            smoothed = (1 - self.smooth) * true + self.smooth * other + self.smooth
            # Rounding, and enlarging, can bring probabilities a little above 1 (or, without smoothing, to 0).
            smoothed = smoothed.clamp(torch.finfo(torch.float32).tiny, 1)
            loss = -((1 - smoothed) ** self.gamma) * smoothed.log()
            weights = self._weights(is_abnormal)
            return (loss if weights is None else weights * loss).mean()

    def _weights(self, is_abnormal: Tensor) -> Tensor | None:
        if self.alpha is None:
            return None
        if isinstance(self.alpha, str):  # "balanced"
            share = is_abnormal.float().mean()
            return torch.where(is_abnormal, 0.5 / share, 0.5 / (1 - share))
        normal, abnormal = (weight / sum(self.alpha) for weight in self.alpha)
        return torch.where(is_abnormal, abnormal, normal)


class BinaryDiceLoss(nn.Module):
    """``1 - (2 |P T| + s) / (|P| + |T| + s)`` of each sample, averaged over all samples.

    MONAI's ``DiceLoss`` on float32, with ``s`` above and below the line.

    A sample is an image, or a row of an image. Rows are what AdaCLIP's published implementation compares: it
    trains with one image at a time and squeezes the batch out of the mask, whose first dimension, which it
    averages over, then is the image's height. Of several images it is the mean over the rows of all, which is
    the mean of what each image gives alone. Where all is normal and much is taken for abnormal, the gradient
    of rows is larger than that of the image, about as many times as it has rows: an image's sum dwarfs ``s``.

    Args:
        smooth: ``s``; 1 as published. An empty target and an empty prediction agree: loss 0.
        over: ``"image"`` or ``"rows"``.

    Raises:
        ValueError: if ``over`` is neither.
    """

    def __init__(self, smooth: float = 1.0, *, over: str = "image") -> None:
        super().__init__()
        if over not in DICE:
            raise ValueError(f"dice must be over one of {', '.join(DICE)}, not {over!r}")
        self.over = over
        self.dice = DiceLoss(smooth_nr=smooth, smooth_dr=smooth)

    def forward(self, probability: Tensor, target: Tensor) -> Tensor:
        """Return the loss.

        Args:
            probability: (B, ...) in [0, 1]; the last dimension runs along a row.
            target: of the same shape, in {0, 1}.

        Returns:
            float32 scalar in [0, 1].

        Raises:
            ValueError: if the shapes differ.
        """
        if probability.shape != target.shape:
            raise ValueError(f"prediction {tuple(probability.shape)} and target {tuple(target.shape)} differ")
        with torch.autocast(probability.device.type, enabled=False):
            rows = self.over == "rows"
            predicted, true = (
                values.float().flatten(0, -2) if rows else values.float().flatten(1)
                for values in (probability, target)
            )
            return self.dice(predicted[:, None], true[:, None])


class ImageCrossEntropy(nn.Module):
    """Cross-entropy of image logits (B, 2) with labels (B,) in {0, 1}; float32."""

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """Return the loss, a float32 scalar."""
        with torch.autocast(logits.device.type, enabled=False):
            return F.cross_entropy(logits.float(), label.long())
