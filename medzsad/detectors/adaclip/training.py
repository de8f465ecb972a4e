"""AdaCLIP's training: what is learned, what of an image never changes, and what its losses are of."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from medzsad.detectors.adaclip.scoring import AdaCLIPComparison, layer_probability_maps
from medzsad.detectors.adaclip.settings import AdaCLIPSettings
from medzsad.detectors.clip.detector import CLIPDetector
from medzsad.detectors.protocols import Judgement, PublishedLoss
from medzsad.errors import BadInput, certain

if TYPE_CHECKING:
    from medzsad.detectors.adaclip.prompts import AdaCLIPAdapter
    from medzsad.detectors.checkpoint import Checkpoint
    from medzsad.detectors.clip.backbone import FrozenCLIP


class AdaCLIPTraining(CLIPDetector):
    """The part of AdaCLIP that is :class:`~medzsad.detectors.protocols.Trainable`."""

    settings_class: ClassVar[type[AdaCLIPSettings]] = AdaCLIPSettings
    published_loss: ClassVar[PublishedLoss] = PublishedLoss("focal", pixel=1.0, dice="rows")
    clip: FrozenCLIP
    config: AdaCLIPSettings
    adapter: AdaCLIPAdapter

    @abc.abstractmethod
    def compare(
        self,
        inputs: Tensor | None,
        *,
        frozen: Mapping[str, Tensor] | None = None,
        class_names: Sequence[str] | None = None,
    ) -> AdaCLIPComparison:
        """Compare images with the texts."""

    def trainable_parameters(self) -> list[nn.Parameter]:
        """Return what training changes: prompts, their generators and projections."""
        return list(self.adapter.parameters())

    def judge(
        self,
        inputs: Tensor | None,
        size: Sequence[int] | None,
        *,
        frozen: Mapping[str, Tensor] | None = None,
        class_names: Sequence[str] | None = None,
    ) -> Judgement:
        """Compare images with the texts; the image's logits are those with fused patches, and the logits of
        patches are enlarged before the softmax.
        """
        comparison = self.compare(inputs, frozen=frozen, class_names=class_names)
        layers = {} if size is None else layer_probability_maps(comparison, size)
        return Judgement(comparison.image_logits, list(layers.values()))

    def frozen_features(self, inputs: Tensor) -> dict[str, Tensor]:
        """All of the images that training does not change, to be computed once per image and kept.

        Args:
            inputs: float32 (B, 3, S, S), normalised.

        Returns:
            Tensors with B first, without a graph. With prompts in the image tower: ``image`` (B, D), plain
            CLIP's feature, if prompts are made from it, else nothing. Without: ``image`` and ``layer.L``
            (B, patches, C) of each output layer L.
        """
        clip, config, output = self.clip, self.config, certain(self.config.output_layers)
        if config.prompts_image:
            return {"image": self._frozen_feature(clip.embed(inputs))} if config.dynamic else {}
        run = clip.run_blocks(clip.embed(inputs), layers=output, class_only=True)
        layers = {f"layer.{layer}": run.layers[layer][:, 1:] for layer in output}
        return {"image": clip.class_feature(run.tokens), **layers}

    def frozen_key(self) -> dict[str, Any]:
        """Return nothing more than settings and tower.

        Raises:
            BadInput: of static prompts in the image tower.
        """
        if self.config.prompts_image and not self.config.dynamic:
            raise BadInput(
                "cache_features has nothing to keep: static prompts in AdaCLIP's image tower change all "
                "features of an image; switch it off"
            )
        return {}

    @classmethod
    def picture(cls, checkpoint: Checkpoint) -> None:
        """Return None: prompts cannot be looked at."""

    @torch.no_grad()
    def _frozen_feature(self, embedded: Tensor) -> Tensor:
        """Plain CLIP's image features (B, D), which dynamic prompts are made from."""
        return self.clip.class_feature(self.clip.run_blocks(embedded, class_only=True).tokens)
