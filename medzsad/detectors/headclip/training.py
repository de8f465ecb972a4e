"""HeadCLIP's training: what is learned, what of an image never changes, and what its losses are of."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from torch import Tensor, nn

from medzsad.detectors.clip.detector import CLIPDetector
from medzsad.detectors.headclip.settings import HeadCLIPSettings
from medzsad.detectors.protocols import Judgement, PublishedLoss
from medzsad.detectors.scoring import upsample

if TYPE_CHECKING:
    import numpy as np

    from medzsad.detectors.checkpoint import Checkpoint
    from medzsad.detectors.clip.backbone import FrozenCLIP
    from medzsad.detectors.headclip.prompts import HeadWeights, PromptLearner


class Comparison(NamedTuple):
    """How alike a batch of images is to "normal" (index 0) and "abnormal" (index 1); losses start here.

    Attributes:
        image_logits: float32 (B, 2).
        patch_probabilities: per layer, float32 (B, 2, rows, columns).
    """

    image_logits: Tensor
    patch_probabilities: dict[int, Tensor]


class HeadCLIPTraining(CLIPDetector):
    """The part of HeadCLIP that is :class:`~medzsad.detectors.protocols.Trainable`."""

    settings_class: ClassVar[type[HeadCLIPSettings]] = HeadCLIPSettings
    published_loss: ClassVar[PublishedLoss] = PublishedLoss("cross_entropy", pixel=4.0, dice="image")
    clip: FrozenCLIP
    config: HeadCLIPSettings
    prompts: PromptLearner | None
    head_weights: HeadWeights

    @abc.abstractmethod
    def compare(self, inputs: Tensor | None, *, frozen: Mapping[str, Tensor] | None = None) -> Comparison:
        """Compare images with the two texts."""

    @abc.abstractmethod
    def _tower_settings(self) -> dict[str, Any]:
        """Return the arguments of ``clip.run_blocks``."""

    def trainable_parameters(self) -> list[nn.Parameter]:
        """Return what training changes: the prompts and the head weights."""
        prompts = [] if self.prompts is None else list(self.prompts.parameters())
        return prompts + list(self.head_weights.parameters())

    def judge(
        self,
        inputs: Tensor | None,
        size: Sequence[int] | None,
        *,
        frozen: Mapping[str, Tensor] | None = None,
        class_names: Sequence[str] | None = None,
    ) -> Judgement:
        """Compare images with the texts, which name no class; maps are enlarged after the softmax."""
        comparison = self.compare(inputs, frozen=frozen)
        layers = comparison.patch_probabilities.values()
        return Judgement(comparison.image_logits, [] if size is None else [upsample(p, size) for p in layers])

    @property
    def first_trained_layer(self) -> int:
        """The first layer (from 1) whose head weights train; one more than there are if none do."""
        weights = self.head_weights
        trained = [
            min(layers)
            for path, layers in weights.layers.items()
            if layers and getattr(weights, path).requires_grad
        ]
        return min(trained, default=self.clip.depth + 1)

    def frozen_features(self, inputs: Tensor) -> dict[str, Tensor]:
        """All of the images that training does not change, to be computed once per image and kept.

        Args:
            inputs: float32 (B, 3, S, S), normalised.

        Returns:
            Tensors with B first, without a graph. If no head weight trains: ``image`` (B, D) and
            ``patches.L`` (B, 1 + patches, D) of each patch layer L. Else ``tokens`` (B, 1 + patches, C) that
            enter the first trained layer; ``path``, the same of the V-V path if it began before; and
            ``patches.L`` of the patch layers before.
        """
        clip, config, first = self.clip, self.config, self.first_trained_layer
        run = clip.run_blocks(clip.embed(inputs), span=(1, first - 1), **self._tower_settings())
        frozen = {f"patches.{layer}": clip.project(tokens) for layer, tokens in run.layers.items()}
        if first > clip.depth:
            frozen["image"] = clip.class_feature(run.tokens, norm=config.class_norm)
            return frozen
        frozen["tokens"] = run.tokens
        if run.path is not None:
            frozen["path"] = run.path
        return frozen

    def frozen_key(self) -> dict[str, Any]:
        """Return the first trained layer, and the head weights that do not train."""
        fixed = [p for p in self.head_weights.parameters() if not p.requires_grad]
        return {
            "first_trained_layer": self.first_trained_layer,
            "head_weights": {str(i): p for i, p in enumerate(fixed)},
        }

    @classmethod
    def picture(cls, checkpoint: Checkpoint) -> np.ndarray | None:
        """Draw the head weights, uint8 (H, W, 3)."""
        from medzsad.detectors.headclip.head_picture import draw_head_weights

        return draw_head_weights(checkpoint)
