"""What training minimises: from a batch of images with masks and labels to one number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Literal, TypedDict

import torch
from torch import Tensor

from medzsad.detectors.base import AnomalyDetector
from medzsad.detectors.protocols import as_trainable, trainable_class
from medzsad.errors import BadInput, certain
from medzsad.training.losses import DICE, BinaryDiceLoss, FocalLoss, ImageCrossEntropy


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


@dataclass(frozen=True)
class LossWeights:
    """How much each loss counts: ``image * L_image + pixel * sum over layers of the weighted pixel losses``.

    Attributes:
        image: of the image-level loss.
        pixel: of the pixel-level losses together.
        focal, dice_abnormal, dice_normal: of each pixel-level loss among them.
        dice: what Dice is computed of, ``"image"`` or ``"rows"``, see
            :class:`~medzsad.training.losses.BinaryDiceLoss`.

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
        if self.dice not in DICE:
            raise BadInput(f"loss dice must be one of {', '.join(DICE)}, not {self.dice!r}")
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name != "dice" and not 0 <= value < float("inf"):
                raise BadInput(f"loss weight {field.name} must be a number of at least 0, not {value}")
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
        gamma, alpha: of the focal losses, see :class:`~medzsad.training.losses.FocalLoss`.

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
