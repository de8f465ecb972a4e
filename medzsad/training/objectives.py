"""What training minimises: from a batch of images with masks and labels to one number.

The losses are those that AnomalyCLIP and AdaCLIP train with, on probabilities, always computed in float32.
Their formulas are those of both methods' published implementations (Lin et al., ICCV 2017, for the focal
loss; Milletari et al., 3DV 2016, for Dice), including where they smooth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypedDict

import torch
import torch.nn.functional as F
from monai.losses import DiceLoss
from torch import Tensor, nn

from medzsad.detectors.base import AnomalyDetector
from medzsad.detectors.protocols import as_trainable, trainable_class
from medzsad.errors import BadInput, certain
from medzsad.settings import Settings

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


class TrainingBatch(TypedDict, total=False):
    """A batch of B images.

    Attributes:
        image: float32 (B, 3, S, S), normalised. May be left out if ``frozen`` is all that is needed.
        mask: (B, H, W) in {0, 1}, of any size; needed unless no image has a mask.
        label: (B,) in {0, 1}.
        has_mask: bool (B,); where False only the label counts. Left out: all have masks.
        frozen: what of the images no training step changes, from
            :class:`~medzsad.training.frozen_features.FeatureCache`; computed anew if left out.
        class_name: B names for AdaCLIP's texts; left out: the detector's own.
    """

    image: Tensor
    mask: Tensor
    label: Tensor
    has_mask: Tensor
    frozen: Mapping[str, Tensor]
    class_name: Sequence[str]


class LossWeights(Settings):
    """How much each loss counts: ``image * L_image + pixel * sum over layers of the weighted pixel losses``.

    Attributes:
        image: of the image-level loss.
        pixel: of the pixel-level losses together.
        focal, dice_abnormal, dice_normal: of each pixel-level loss among them.
        dice: what Dice is computed of, ``"image"`` or ``"rows"``, see
            :class:`~medzsad.training.objectives.BinaryDiceLoss`.

    Raises:
        BadInput: on a weight that is negative or not finite, if all of them are 0, or on another ``dice``.
    """

    image: float = 1.0
    pixel: float = 4.0
    focal: float = 1.0
    dice_abnormal: float = 1.0
    dice_normal: float = 1.0
    dice: Literal["image", "rows"] = "image"

    def __post_init__(self) -> None:
        for name in ("image", "pixel", "focal", "dice_abnormal", "dice_normal"):
            if getattr(self, name) < 0:
                value = getattr(self, name)
                raise BadInput(f"loss weight {name} must be a number of at least 0, not {value}")
        if self.image == 0 and self.pixel * (self.focal + self.dice_abnormal + self.dice_normal) == 0:
            raise BadInput("loss weights: all of them are 0, so that there is nothing to minimise")

    @classmethod
    def of_method(cls, method: str) -> LossWeights:
        """Return the published ones: pixel 4 for HeadCLIP and AnomalyCLIP; 1 and Dice of rows for AdaCLIP.

        Raises:
            ModelNotReady: if the method is not trained here.
        """
        published = trainable_class(method).published_loss
        return cls(pixel=published.pixel, dice=published.dice)


class Objective:
    """The published loss of the detector's method.

    HeadCLIP and AnomalyCLIP: cross-entropy of the image logits, and per patch layer focal loss and two Dice
    losses on probabilities, enlarged after the softmax. AdaCLIP: focal loss of the image probability (with
    fused patches), and the same pixel losses per output layer, enlarged before the softmax.

    Args:
        detector: a HeadCLIP, AnomalyCLIP or AdaCLIP.
        weights: None for the method's own.
        gamma, alpha: of the focal losses, see :class:`~medzsad.training.objectives.FocalLoss`.

    Raises:
        ModelNotReady: if the detector is of a method that is not trained here.
    """

    def __init__(
        self,
        detector: AnomalyDetector,
        weights: LossWeights | None = None,
        *,
        gamma: float = 2.0,
        alpha: tuple[float, float] | str | None = None,
    ) -> None:
        self.detector, self.trainable = detector, as_trainable(detector)
        self.weights = LossWeights.of_method(detector.method) if weights is None else weights
        self.focal = FocalLoss(gamma, alpha)
        self.dice = BinaryDiceLoss(over=self.weights.dice)
        self.cross_entropy = ImageCrossEntropy()

    def __call__(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """Return the losses of a batch.

        Returns:
            float32 scalars: ``loss``, the weighted sum, with its graph; and, unweighted and without a graph,
            ``image_loss``, ``focal``, ``dice_abnormal`` and ``dice_normal``, the last three summed over
            layers and 0 if no image has a mask.
        """
        device = self.detector.device
        label = batch["label"].to(device, non_blocking=True)
        has_mask, mask = batch.get("has_mask"), batch.get("mask")
        if has_mask is not None and has_mask.all():
            has_mask = None  # asked where it is, so that nothing waits for a GPU
        if has_mask is not None:
            mask = None if mask is None or not has_mask.any() else mask[has_mask.to(mask.device)]
            has_mask = has_mask.to(device)
        if mask is not None:
            mask = mask.to(device, non_blocking=True)
        size = None if mask is None else tuple(mask.shape[-2:])
        judgement = self.trainable.judge(
            batch.get("image"), size, frozen=batch.get("frozen"), class_names=batch.get("class_name")
        )
        image_loss = self._image_loss(judgement.image_logits, label)
        pixel = {
            name: torch.zeros((), device=label.device) for name in ("focal", "dice_abnormal", "dice_normal")
        }
        for probabilities in judgement.layers:
            kept = probabilities if has_mask is None else probabilities[has_mask]
            pixel["focal"] = pixel["focal"] + self.focal(kept, mask)
            pixel["dice_abnormal"] = pixel["dice_abnormal"] + self.dice(kept[:, 1], mask)
            pixel["dice_normal"] = pixel["dice_normal"] + self.dice(kept[:, 0], 1 - certain(mask).float())
        weighted = sum(getattr(self.weights, name) * value for name, value in pixel.items())
        loss = self.weights.image * image_loss + self.weights.pixel * weighted
        return {
            "loss": loss,
            "image_loss": image_loss.detach(),
            **{name: value.detach() for name, value in pixel.items()},
        }

    def _image_loss(self, logits: Tensor, label: Tensor) -> Tensor:
        if self.trainable.published_loss.image == "focal":
            return self.focal(logits.softmax(-1), label)
        return self.cross_entropy(logits, label)
