"""AdaCLIP (Cao et al., ECCV 2024): CLIP with static and dynamic prompts in both towers.

Where the paper and its authors' implementation differ, this follows the implementation, whose weights it
loads; both fusions are there (:mod:`medzsad.detectors.adaclip_fusion`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from medzsad.detectors.adaclip_comparison import (
    AdaCLIPComparison,
    Encoded,
    aggregated_map,
    compare_features,
)
from medzsad.detectors.adaclip_prompts import AdaCLIPAdapter, read_published
from medzsad.detectors.adaclip_settings import AdaCLIPSettings
from medzsad.detectors.base import AnomalyDetector, Prediction
from medzsad.detectors.checkpoint import Checkpoint
from medzsad.detectors.clip.backbone import FrozenCLIP
from medzsad.detectors.clip.building import Weights, build_clip, check_fingerprint, require_named_weights
from medzsad.detectors.text_states import StateTokens, pool_states, state_tokens
from medzsad.errors import ModelNotReady


class AdaCLIP(AnomalyDetector):
    """Detector with a text about what the images show.

    Dynamic text prompts (``"D"`` on branch ``"L"``, as in the published weights) make the text features
    depend on the image, so that predicting needs the text tower. Otherwise they are finished and stored.

    Args:
        clip: the backbone.
        config: the settings; Nones are decided for ``clip``.
        adapter: the learned parts; None for untrained ones, if ``clip`` has its text tower.
        text_features: float32 (2, D), needed if ``clip`` has no text tower.
        threshold: see the base class.

    Raises:
        ModelNotReady: if settings, adapter or text features do not fit the backbone, or it lacks a text tower
            that is needed.
    """

    method: ClassVar[str] = "adaclip"
    uses_organ: ClassVar[bool] = True

    def __init__(
        self,
        clip: FrozenCLIP,
        config: AdaCLIPSettings | None = None,
        *,
        adapter: AdaCLIPAdapter | None = None,
        text_features: Tensor | None = None,
        threshold: float | str = 0.5,
    ) -> None:
        config = (config or AdaCLIPSettings()).resolve(clip)
        super().__init__(image_size=config.image_size, threshold=threshold)
        self.clip = clip
        self.config = config
        self.adapter = AdaCLIPAdapter.build(config, clip) if adapter is None else adapter
        self._tokens: StateTokens | None = None
        self.register_buffer("text_features", None)
        if config.text_depends_on_image:
            self._state_tokens()
        elif text_features is None:
            self.finish_texts()
        elif text_features.shape != (2, clip.embed_dim):
            raise ModelNotReady(
                f"text features {tuple(text_features.shape)} do not fit {clip.name}: "
                f"needed is (2, {clip.embed_dim})"
            )
        else:
            self.text_features = text_features.detach().float().clone()

    @classmethod
    def build(
        cls,
        config: AdaCLIPSettings | None = None,
        *,
        clip_weights: Weights | None = None,
        with_text_tower: bool = True,
    ) -> AdaCLIP:
        """An untrained AdaCLIP, with its text tower for training.

        Args:
            config: the settings.
            clip_weights: overrides ``config.clip_weights``; if both are None, weights are random.
            with_text_tower: False drops the tower once texts are encoded, if predicting does without it.
        """
        config = config or AdaCLIPSettings()
        detector = cls(build_clip(config, clip_weights, text=True), config)
        return detector._keep_text_tower(with_text_tower).eval()

    @classmethod
    def from_published(
        cls,
        path: str | os.PathLike[str],
        model: str | dict[str, Any] | None = None,
        clip_weights: Weights | None = None,
        *,
        config: AdaCLIPSettings | None = None,
        class_name: str | None = None,
        with_text_tower: bool = False,
    ) -> AdaCLIP:
        """The detector of a checkpoint of the published implementation.

        Args:
            path: the ``.pth`` file; read without unpickling code.
            model: overrides ``config.backbone``, by default ViT-L/14 at 336 px.
            clip_weights: overrides ``config.clip_weights``, by default OpenAI's.
            config: the settings; prompt type, branch, depth and length are the file's, as far as it tells.
            class_name: overrides ``config.class_name``.
            with_text_tower: keep the text tower even if predicting needs it not.

        Raises:
            ModelNotReady: if the file cannot be used, or the backbone's weights are missing or do not fit.
        """
        tensors, sizes = read_published(path)
        config = replace(config or AdaCLIPSettings(), **sizes)
        if model is not None:
            config = replace(config, backbone=model)
        if class_name is not None:
            config = replace(config, class_name=class_name)
        clip = build_clip(config, clip_weights, text=True)
        config = config.resolve(clip)
        detector = cls(clip, config, adapter=AdaCLIPAdapter.build(config, clip, tensors))
        return detector._keep_text_tower(with_text_tower).eval()

    @classmethod
    def assemble(
        cls,
        settings: Mapping[str, Any],
        *,
        clip_weights: str | Path | None = None,
        adapter: str | Path | None = None,
        organ: str | None = None,
    ) -> AdaCLIP:
        """See the base class; of the organ's vocabulary only the class name is used, as in training."""
        if adapter is None:
            raise ModelNotReady("adaclip needs learned prompts (an AdaCLIP checkpoint)")
        class_name = None
        if organ is not None:
            from medzsad.detectors.organs import vocabulary

            class_name = vocabulary(organ).class_name
        return cls.from_published(
            adapter,
            clip_weights=clip_weights,
            config=AdaCLIPSettings.from_dict(settings),
            class_name=class_name,
        )

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that determine the numbers, JSON-serialisable."""
        return {**asdict(self.config), "precision": self.precision}

    @property
    def class_name(self) -> str:
        """What the images show, e.g. ``"brain"``; may be set.

        Raises:
            ModelNotReady: on setting, if there is no text tower, or the name is empty.
            ValueError: on setting, if the name is too long.
        """
        return self.config.class_name

    @class_name.setter
    def class_name(self, name: str) -> None:
        previous = self.config, self._tokens
        self.config, self._tokens = replace(self.config, class_name=name).resolve(self.clip), None
        try:
            if self.config.text_depends_on_image:
                self._state_tokens()
            else:
                self.finish_texts()
        except (ModelNotReady, ValueError):
            self.config, self._tokens = previous
            raise

    def trainable_parameters(self) -> list[nn.Parameter]:
        """What training changes: prompts, their generators and projections."""
        return list(self.adapter.parameters())

    @torch.no_grad()
    def finish_texts(self) -> None:
        """Encodes the texts once and keeps their features, after which the text tower may be dropped.

        Raises:
            ModelNotReady: if there is no text tower, or each image has text features of its own.
        """
        if self.config.text_depends_on_image:
            raise ModelNotReady("dynamic text prompts depend on the image: the texts cannot be encoded once")
        with torch.autocast(self.device.type, enabled=False):
            self.text_features = self._prompted_texts(None)[0].clone()

    def encode_texts(self, frozen: Tensor | None = None) -> Tensor:
        """Text features: encoded anew from prompts if there is a text tower, else as stored.

        Args:
            frozen: (B, D) plain CLIP's features of the images, for dynamic prompts.

        Returns:
            float32 (B, 2, D), or (1, 2, D) if the same for all images; row 0 normal, row 1 abnormal.
        """
        if self.config.text_depends_on_image:
            return self._prompted_texts(frozen)
        if self.clip.text is None or not self.config.prompts_text:
            return self.text_features[None]
        with torch.autocast(self.device.type, enabled=False):
            return self._prompted_texts(None)

    def encode(self, inputs: Tensor) -> Encoded:
        """Features of images and texts; differentiable in everything learned.

        Args:
            inputs: float32 (B, 3, S, S), normalised.
        """
        clip, adapter, config = self.clip, self.adapter, self.config
        embedded = clip.embed(inputs)
        if config.prompts_image:
            frozen = self._frozen_feature(embedded) if config.dynamic else None
            hook = adapter.image_hook(frozen)
            run = clip.run_blocks(embedded, layers=config.output_layers, before_block=hook)
        else:
            run = clip.run_blocks(embedded, layers=config.output_layers)
            frozen = clip.class_feature(run.tokens).detach()
        count = embedded.shape[1]  # what follows are prompts
        patches = adapter.project_patches([run.layers[n][:, 1:count] for n in config.output_layers])
        return Encoded(
            self.encode_texts(frozen).transpose(1, 2).expand(len(inputs), -1, -1),
            adapter.project_image(clip.class_feature(run.tokens[:, :count])),
            dict(zip(config.output_layers, patches, strict=True)),
            clip.grid(inputs),
        )

    def compare(self, inputs: Tensor) -> AdaCLIPComparison:
        """Compares images with the texts; differentiable in everything learned.

        Args:
            inputs: float32 (B, 3, S, S), normalised.
        """
        return compare_features(self.encode(inputs), self.config)

    def detect(self, inputs: Tensor) -> Prediction:
        """Predicts; the map is of the size of ``inputs``.

        ``image_score`` is the probability of "abnormal" for the image feature fused with suspicious patches,
        ``image_probability`` that for the class token alone.

        Args:
            inputs: float32 (B, 3, S, S), normalised.
        """
        comparison = self.compare(inputs)
        return Prediction(
            aggregated_map(comparison, tuple(inputs.shape[-2:]), sigma=self.config.smoothing_sigma),
            comparison.image_logits.softmax(-1)[:, 1],
            comparison.class_logits.softmax(-1)[:, 1],
        )

    def to_checkpoint(self) -> Checkpoint:
        """What was learned, finished text features if there are any, and settings; no backbone weights."""
        tensors = {f"adapter.{name}": tensor for name, tensor in self.adapter.state_dict().items()}
        if not self.config.text_depends_on_image:
            if self.clip.text is not None:
                self.finish_texts()
            tensors["text_features"] = self.text_features
        settings = {
            **asdict(self.config),
            "threshold": self.threshold,
            "clip_fingerprint": self.clip.fingerprint(),
        }
        stored = {name: tensor.detach().float().cpu().clone() for name, tensor in tensors.items()}
        return Checkpoint(self.method, stored, settings=settings)

    @classmethod
    def from_checkpoint(
        cls, checkpoint: Checkpoint, *, clip_weights: Weights | None = None, with_text_tower: bool = False
    ) -> AdaCLIP:
        """Builds the detector.

        Args:
            checkpoint: what :meth:`to_checkpoint` returned.
            clip_weights: the backbone's weights, overriding what the checkpoint names.
            with_text_tower: build the text tower even if predicting does without, to train further or to
                change the class name.

        Raises:
            ModelNotReady: if the checkpoint is another method's or incomplete, or the backbone's weights are
                missing, do not fit, or are not those that the detector was trained with.
        """
        if checkpoint.method != cls.method:
            raise ModelNotReady(f"a checkpoint of method {checkpoint.method!r}, not {cls.method!r}")
        stored = dict(checkpoint.settings)
        threshold, fingerprint = stored.pop("threshold", 0.5), stored.pop("clip_fingerprint", None)
        config = AdaCLIPSettings.from_dict(stored)
        require_named_weights(config, clip_weights)
        clip = build_clip(config, clip_weights, text=with_text_tower or config.text_depends_on_image)
        check_fingerprint(fingerprint, clip, config.clip_weights)
        text_features = checkpoint.tensors.get("text_features")
        if text_features is None and not config.text_depends_on_image:
            raise ModelNotReady("the checkpoint holds no text_features")
        config = config.resolve(clip)
        learned = {
            n.removeprefix("adapter."): t for n, t in checkpoint.tensors.items() if n.startswith("adapter.")
        }
        adapter = AdaCLIPAdapter.build(config, clip, learned)
        return cls(clip, config, adapter=adapter, text_features=text_features, threshold=threshold).eval()

    def _keep_text_tower(self, wanted: bool) -> AdaCLIP:
        if not wanted and not self.config.text_depends_on_image:
            self.clip.drop_text_tower()
        return self

    def _state_tokens(self) -> StateTokens:
        """The tokenised texts, on the detector's device; made once per class name."""
        if self._tokens is None or self._tokens.ids.device != self.device:
            # What inference mode makes could not be used in training later.
            with torch.inference_mode(False):
                self._tokens = state_tokens(
                    self.clip, self.config.class_name, min_length=1 + self.config.prompt_length
                )
        return self._tokens

    @torch.no_grad()
    def _frozen_feature(self, embedded: Tensor) -> Tensor:
        """Plain CLIP's image features (B, D), which dynamic prompts are made from."""
        return self.clip.class_feature(self.clip.run_blocks(embedded).tokens)

    def _prompted_texts(self, frozen: Tensor | None) -> Tensor:
        tokens = self._state_tokens()
        texts, images = len(tokens.ids), 1 if frozen is None else len(frozen)
        features = self.clip.encode_text(
            self.clip.embed_text(tokens.ids).repeat(images, 1, 1),
            tokens.ends.repeat(images),
            before_block=self.adapter.text_hook(frozen, texts),
        )
        return pool_states(features.unflatten(0, (images, texts)), tokens.normal)
