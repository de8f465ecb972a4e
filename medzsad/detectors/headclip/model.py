"""HeadCLIP (Jeong, Heo, Son, Kang; arXiv 2505.22259): CLIP with learned prompts and attention head weights.

The text side and the patch features are AnomalyCLIP's (Zhou et al., ICLR 2024); with all head weights at 1
and ``joint_weight`` 0 HeadCLIP equals AnomalyCLIP.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from medzsad.detectors.base import Prediction
from medzsad.detectors.checkpoint import Checkpoint
from medzsad.detectors.clip.backbone import FrozenCLIP
from medzsad.detectors.clip.detector import Weights, build_clip, stored_texts
from medzsad.detectors.clip.weights import read_tensors
from medzsad.detectors.headclip.files import read_headclip
from medzsad.detectors.headclip.layouts import tower_of
from medzsad.detectors.headclip.prompts import HeadWeights, PromptLearner, load_anomalyclip_prompts
from medzsad.detectors.headclip.settings import HeadCLIPSettings
from medzsad.detectors.headclip.training import Comparison, HeadCLIPTraining
from medzsad.detectors.organs import OBJECT
from medzsad.detectors.scoring import (
    abnormality,
    gaussian_smooth,
    joint_score,
    patch_probabilities,
    pool_map,
    similarity_logits,
    upsample,
)
from medzsad.detectors.tensor_names import part_of
from medzsad.errors import ModelNotReady, certain


class HeadCLIP(HeadCLIPTraining):
    """The main method. To predict it needs its image tower only: finished text features are stored.

    Args:
        clip: the backbone.
        config: the settings; Nones are decided for ``clip``.
        prompts: learned prompts; None for untrained ones, if ``clip`` has its text tower.
        text_features: float32 (2, D), needed if ``clip`` has no text tower.
        threshold: see the base class.

    Attributes:
        head_weights: all 1 at first.
        text_features: (2, D); as long as there is a text tower the prompts are encoded anew instead.

    Raises:
        ModelNotReady: if settings, prompts or text features do not fit the backbone.
    """

    method: str = "headclip"

    def __init__(
        self,
        clip: FrozenCLIP,
        config: HeadCLIPSettings | None = None,
        *,
        prompts: PromptLearner | None = None,
        text_features: Tensor | None = None,
        threshold: float | str = 0.5,
    ) -> None:
        config = (config or HeadCLIPSettings()).resolve(clip)
        super().__init__(image_size=config.image_size, threshold=threshold)
        self.clip = clip
        if prompts is None and clip.text is not None:
            prompts = PromptLearner(
                clip.text.token_embedding.weight.shape[1],
                context_length=config.prompt_length,
                deep_length=config.deep_length,
                deep_depth=config.deep_depth,
                deep_start=config.deep_start,
                deep_position=config.deep_position,
            )
        if prompts is not None:
            sizes: dict[str, Any] = prompts.sizes
            config = replace(config, **sizes)
        self.config = config
        self.prompts = prompts
        self.head_weights = HeadWeights(
            certain(config.head_layers),
            clip.heads,
            vv_start=certain(config.vv_start),
            paths=config.head_paths,
            parametrisation=config.head_parametrisation,
        )
        if text_features is None:
            if prompts is None:
                raise ModelNotReady("HeadCLIP needs text features, or a text tower to make them")
            with torch.no_grad():
                text_features = prompts(clip)
        self._keep_texts(text_features)

    @classmethod
    def build(
        cls,
        config: HeadCLIPSettings | None = None,
        *,
        clip_weights: Weights | None = None,
        with_text_tower: bool = True,
        prompts: PromptLearner | None = None,
    ) -> Self:
        """Return an untrained HeadCLIP (head weights 1), with its text tower for training.

        Args:
            config: the settings.
            clip_weights: overrides ``config.clip_weights``; if both are None, weights are random.
            with_text_tower: False drops the tower once the text features are made.
            prompts: learned prompts; None for untrained ones.
        """
        config = config or HeadCLIPSettings()
        clip = build_clip(config, clip_weights, text=True)
        detector = cls(clip, config, prompts=prompts)
        if not with_text_tower:
            clip.drop_text_tower()
        return detector.eval()

    @classmethod
    def from_anomalyclip(
        cls,
        path: str | os.PathLike[str],
        config: HeadCLIPSettings | None = None,
        *,
        clip_weights: Weights | None = None,
        with_text_tower: bool = False,
    ) -> Self:
        """Return a zero-shot detector from a published AnomalyCLIP checkpoint, without any training.

        Args:
            path: the ``.pth`` file.
            config: the settings; ``joint_weight=0`` gives exactly AnomalyCLIP.
            clip_weights: overrides ``config.clip_weights``.
            with_text_tower: keep the text tower, to train further.

        Raises:
            ModelNotReady: if the file cannot be used, or the backbone's weights are missing or do not fit.
        """
        prompts = load_anomalyclip_prompts(path)
        return cls.build(config, clip_weights=clip_weights, with_text_tower=with_text_tower, prompts=prompts)

    @classmethod
    def assemble(
        cls,
        settings: Mapping[str, Any],
        *,
        clip_weights: str | Path | None = None,
        adapter: str | Path | None = None,
        organ: str | None = None,
        class_name: str | None = None,
    ) -> Self:
        """See the base class; prompts name no organ and no class.

        ``adapter`` is a published AnomalyCLIP checkpoint, or prompts and head weights in a layout that
        :mod:`medzsad.detectors.headclip.files` recognises.
        """
        if organ is not None or class_name is not None:
            raise ModelNotReady(f"{cls.method}'s prompts are object-agnostic: it has no use for an organ")
        if adapter is None:
            raise ModelNotReady(f"{cls.method} needs learned prompts (an AnomalyCLIP checkpoint)")
        config = HeadCLIPSettings.from_dict(settings)
        tensors, _ = read_tensors(adapter)
        found = read_headclip(tensors, lambda: tower_of(config.backbone), origin=str(adapter))
        if found is None:
            return cls.from_anomalyclip(adapter, config, clip_weights=clip_weights)
        return cls._from_published(found[0], config, clip_weights, str(adapter))

    @classmethod
    def _from_published(
        cls,
        tensors: Mapping[str, Tensor],
        config: HeadCLIPSettings,
        clip_weights: Weights | None,
        origin: str,
    ) -> Self:
        """Return a trained detector from prompts and head weights in the form of ``headclip_files``."""
        heads = part_of(tensors, "head_weights.")
        paths: Any = "+".join(heads)
        config = replace(
            config,
            head_paths=paths,
            head_parametrisation="raw",
            head_layers=tuple(range(1, len(next(iter(heads.values()))) + 1)) if "image" in heads else None,
        )
        prompts = PromptLearner.from_tensors(part_of(tensors, "prompt_learner."), origin=origin)
        detector = cls.build(config, clip_weights=clip_weights, with_text_tower=False, prompts=prompts)
        with torch.no_grad():
            for path, factors in heads.items():
                layers = detector.head_weights.layers[path]
                getattr(detector.head_weights, path).copy_(factors[[layer - 1 for layer in layers]])
        return detector

    @property
    def class_name(self) -> str:
        """Always ``"object"``: the prompts are object-agnostic."""
        return OBJECT.class_name

    def encode_texts(self) -> Tensor:
        """Text features (2, D), L2-normalised: from the prompts if there is a text tower, else as stored."""
        if self.clip.text is None or self.prompts is None:
            return self.text_features
        with torch.autocast(self.device.type, enabled=False):
            return self.prompts(self.clip)

    def encode_images(
        self, inputs: Tensor | None, *, frozen: Mapping[str, Tensor] | None = None
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """Image features (B, D) and, per patch layer, patch features (B, 1 + patches, D), class token first.

        Args:
            inputs: float32 (B, 3, S, S), normalised. Nothing is L2-normalised on return.
            frozen: what :meth:`frozen_features` gave for them; ``inputs`` are not looked at then.
        """
        # Not under no_grad: autograd records nothing there, unless the caller wants the inputs' gradient.
        frozen = self.frozen_features(certain(inputs)) if frozen is None else frozen
        clip, config = self.clip, self.config
        names = {layer: f"patches.{layer}" for layer in sorted(certain(config.patch_layers))}
        patches = {layer: frozen[name] for layer, name in names.items() if name in frozen}
        if "image" in frozen:
            return frozen["image"], patches
        run = clip.run_blocks(
            frozen["tokens"],
            span=(self.first_trained_layer, clip.depth),
            path=frozen.get("path"),
            **self._tower_settings(),
        )
        patches |= {layer: clip.project(tokens) for layer, tokens in run.layers.items()}
        return clip.class_feature(run.tokens, norm=config.class_norm), patches

    def compare(self, inputs: Tensor | None, *, frozen: Mapping[str, Tensor] | None = None) -> Comparison:
        """Compare images with the two texts; differentiable in prompts and head weights.

        Args:
            inputs: float32 (B, 3, S, S), normalised.
            frozen: what :meth:`frozen_features` gave for them; ``inputs`` may be None then.
        """
        text, temperature = self.encode_texts(), self.config.temperature
        image, patches = self.encode_images(inputs, frozen=frozen)
        sides = (self.image_size, self.image_size) if inputs is None else inputs.shape[-2:]
        grid = self.clip.grid(sides)
        return Comparison(
            similarity_logits(image, text, temperature),
            {
                layer: patch_probabilities(features[:, 1:], text, grid, temperature)
                for layer, features in patches.items()
            },
        )

    def summed_map(self, comparison: Comparison, size: Sequence[int], *, smooth: bool = True) -> Tensor:
        """Return the published map, (B, H, W) in [0, number of patch layers].

        A sum over layers, then smoothed.
        """
        layers = [abnormality(p) for p in comparison.patch_probabilities.values()]
        maps = upsample(torch.stack(layers).sum(0), size)
        return gaussian_smooth(maps, self.config.smoothing_sigma) if smooth else maps

    def detect(self, inputs: Tensor) -> Prediction:
        """Predicts; the map is the mean over the patch layers, smoothed, of the size of ``inputs``.

        Args:
            inputs: float32 (B, 3, S, S), normalised.
        """
        comparison = self.compare(inputs)
        maps = self.summed_map(comparison, tuple(inputs.shape[-2:])) / len(comparison.patch_probabilities)
        probability = comparison.image_logits.softmax(-1)[:, 1]
        pooled = pool_map(maps, self.config.pool, self.config.pool_percent)
        return Prediction(maps, joint_score(probability, pooled, self.config.joint_weight), probability)

    def _prepare_graph(self, source: Self) -> None:
        self.clip = source.clip.at_size(self.image_size)
        self.text_features = source.encode_texts().detach()
        self.clip.drop_text_tower()

    def to_checkpoint(self) -> Checkpoint:
        """Prompts, head weights, finished text features and settings, without the backbone's weights."""
        with torch.no_grad():
            tensors = {"text_features": self.encode_texts()}
        for part, module in (("prompts", self.prompts), ("head_weights", self.head_weights)):
            if module is not None:
                tensors |= {f"{part}.{name}": tensor for name, tensor in module.state_dict().items()}
        return self._checkpoint(tensors)

    @classmethod
    def from_checkpoint(
        cls, checkpoint: Checkpoint, *, clip_weights: Weights | None = None, with_text_tower: bool = False
    ) -> Self:
        """Build the detector.

        Args:
            checkpoint: what :meth:`to_checkpoint` returned.
            clip_weights: the backbone's weights, overriding what the checkpoint names.
            with_text_tower: also build the text tower, to train further.

        Raises:
            ModelNotReady: if the checkpoint is another method's or incomplete, or the backbone's weights are
                missing, do not fit, or are not those that the detector was trained with.
        """
        config, threshold = cls._read(checkpoint, HeadCLIPSettings)
        text_features = stored_texts(checkpoint)
        clip = cls._clip_of(checkpoint, config, clip_weights, text=with_text_tower)
        prompts = PromptLearner.from_tensors(
            part_of(checkpoint.tensors, "prompts."),
            deep_start=config.deep_start,
            deep_position=config.deep_position,
        )
        detector = cls(clip, config, prompts=prompts, text_features=text_features, threshold=threshold)
        try:
            detector.head_weights.load_state_dict(part_of(checkpoint.tensors, "head_weights."))
        except RuntimeError as error:
            raise ModelNotReady(
                "the checkpoint's head weights do not fit its settings or its backbone"
            ) from error
        return detector.eval()

    def _tower_settings(self) -> dict[str, Any]:
        return {
            "layers": self.config.patch_layers,
            "vv_start": self.config.vv_start,
            "head_scales": self.head_weights.scales("image"),
            "vv_head_scales": self.head_weights.scales("patch"),
            "class_only": True,
        }
