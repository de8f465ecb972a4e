"""AdaCLIP (Cao et al., ECCV 2024): CLIP with static and dynamic prompts in both towers.

Where the paper and its authors' implementation differ, this follows the implementation, whose weights it
loads; both fusions are there (:mod:`medzsad.detectors.adaclip.scoring`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from medzsad.detectors.adaclip.prompts import AdaCLIPAdapter, prompted_texts, read_published
from medzsad.detectors.adaclip.scoring import (
    AdaCLIPComparison,
    Encoded,
    aggregated_map,
    compare_features,
)
from medzsad.detectors.adaclip.settings import AdaCLIPSettings
from medzsad.detectors.adaclip.training import AdaCLIPTraining
from medzsad.detectors.base import AnomalyDetector, Prediction
from medzsad.detectors.checkpoint import Checkpoint
from medzsad.detectors.clip.backbone import FrozenCLIP
from medzsad.detectors.clip.detector import Weights, build_clip, stored_texts
from medzsad.detectors.clip.state_prompts import StateTokens, state_tokens
from medzsad.detectors.organs import name_of
from medzsad.detectors.tensor_names import part_of
from medzsad.errors import BadInput, ModelNotReady, certain


class AdaCLIP(AdaCLIPTraining):
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

    method: str = "adaclip"
    uses_organ: bool = True
    bounded_in_bf16: ClassVar[bool] = False  # with logits of 100 times a cosine, scores move by up to 3e-3

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
        self._tokens: dict[str, StateTokens] = {}
        self._finished = False
        self.register_buffer("text_features", None)
        if config.text_depends_on_image:
            self._state_tokens()
        elif text_features is None:
            self.finish_texts()
        else:
            self._keep_texts(text_features)

    @classmethod
    def build(
        cls,
        config: AdaCLIPSettings | None = None,
        *,
        clip_weights: Weights | None = None,
        with_text_tower: bool = True,
    ) -> AdaCLIP:
        """Return an untrained AdaCLIP, with its text tower for training.

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
        """Return the detector of a checkpoint of the published implementation.

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
        class_name: str | None = None,
    ) -> AdaCLIP:
        """See the base class; of the organ's vocabulary only the class name is used, as in training."""
        if adapter is None:
            raise ModelNotReady("adaclip needs learned prompts (an AdaCLIP checkpoint)")
        return cls.from_published(
            adapter,
            clip_weights=clip_weights,
            config=AdaCLIPSettings.from_dict(settings),
            class_name=name_of(organ, class_name),
        )

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
        self._speak_of(name, self.clip)

    def for_classes(self, names: Iterable[str], *, organ: str | None = None) -> dict[str, AnomalyDetector]:
        """See the base class; an organ has no phrases here. Texts that no image changes are those of now:
        what is trained afterwards does not reach them.
        """
        names = list(dict.fromkeys(names))
        encoded = not self.config.text_depends_on_image
        if encoded and self.clip.text is None and set(names) <= {self.class_name}:
            return dict.fromkeys(names, self)
        clip = self.clip.with_text_tower() if encoded else self.clip
        found: dict[str, AnomalyDetector] = {}
        for name in names:
            found[name] = other = self._copy()
            try:
                other._speak_of(name, clip)
            except ValueError as error:
                raise BadInput(str(error)) from error
            other._finished = encoded
        return found

    @torch.no_grad()
    def finish_texts(self, clip: FrozenCLIP | None = None) -> None:
        """Encode the texts once and keep their features, after which the text tower may be dropped.

        Args:
            clip: whose text tower encodes them; None for the detector's own.

        Raises:
            ModelNotReady: if there is no text tower, or each image has text features of its own.
        """
        if self.config.text_depends_on_image:
            raise ModelNotReady("dynamic text prompts depend on the image: the texts cannot be encoded once")
        self.text_features = self._texts_of(None, self.class_name, clip)[0].clone()

    def encode_texts(self, frozen: Tensor | None = None, class_names: Sequence[str] | None = None) -> Tensor:
        """Text features: encoded anew from prompts if there is a text tower, else as stored.

        Args:
            frozen: (B, D) plain CLIP's features of the images, for dynamic prompts.
            class_names: what each of the B images shows; None for :attr:`class_name`.

        Returns:
            float32 (B, 2, D), or (1, 2, D) if the same for all images; row 0 normal, row 1 abnormal.

        Raises:
            ModelNotReady: if another class is named and there is no text tower.
            ValueError: if a class name is too long.
        """
        name = self.class_name
        if class_names is None or set(class_names) == {name}:
            stored = self.clip.text is None and not self.config.text_depends_on_image
            if self._finished or stored or not self.config.prompts_text:
                return self.text_features[None]
            return self._texts_of(frozen, name)
        features: dict[int, Tensor] = {}
        for name in dict.fromkeys(class_names):  # each class is encoded once
            rows = [row for row, other in enumerate(class_names) if other == name]
            own = certain(frozen)[rows] if self.config.text_depends_on_image else None
            features |= dict(zip(rows, self._texts_of(own, name).expand(len(rows), -1, -1), strict=True))
        return torch.stack([features[row] for row in range(len(class_names))])

    def encode(
        self,
        inputs: Tensor | None,
        *,
        frozen: Mapping[str, Tensor] | None = None,
        class_names: Sequence[str] | None = None,
    ) -> Encoded:
        """Features of images and texts; differentiable in everything learned.

        Args:
            inputs: float32 (B, 3, S, S), normalised.
            frozen: what :meth:`frozen_features` gave for them; ``inputs`` may be None then, unless the image
                tower is prompted.
            class_names: what each image shows; None for :attr:`class_name`.
        """
        clip, adapter, config = self.clip, self.adapter, self.config
        output = certain(config.output_layers)
        if config.prompts_image:
            embedded = clip.embed(certain(inputs))
            feature = None
            if config.dynamic:
                feature = self._frozen_feature(embedded) if frozen is None else frozen["image"]
            run = clip.run_blocks(
                embedded,
                layers=output,
                before_block=adapter.image_hook(feature),
                class_only=True,
            )
            count = embedded.shape[1]  # what follows are prompts
            image = clip.class_feature(run.tokens[:, :count])
            layers = [run.layers[n][:, 1:count] for n in output]
        else:
            frozen = self.frozen_features(certain(inputs)) if frozen is None else frozen
            image = frozen["image"]
            feature = image.detach()
            layers = [frozen[f"layer.{n}"] for n in output]
        patches = adapter.project_patches(layers)
        sides = (self.image_size, self.image_size) if inputs is None else inputs.shape[-2:]
        return Encoded(
            self.encode_texts(feature, class_names).transpose(1, 2).expand(image.shape[0], -1, -1),
            adapter.project_image(image),
            dict(zip(output, patches, strict=True)),
            clip.grid(sides),
        )

    def compare(
        self,
        inputs: Tensor | None,
        *,
        frozen: Mapping[str, Tensor] | None = None,
        class_names: Sequence[str] | None = None,
    ) -> AdaCLIPComparison:
        """Compare images with the texts; differentiable in everything learned.

        Args:
            inputs, frozen, class_names: see :meth:`encode`.
        """
        return compare_features(self.encode(inputs, frozen=frozen, class_names=class_names), self.config)

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

    def check_graph(self) -> None:
        """See the base class.

        Raises:
            BadInput: also of fused patches.
        """
        super().check_graph()
        if self.config.fusion != "off":
            raise BadInput(
                f"{self.name}: AdaCLIP groups patches by k-means for its image score (fusion "
                f"{self.config.fusion!r}), which ONNX cannot express; only fusion 'off' can be exported"
            )

    def _prepare_graph(self, source: Self) -> None:
        self.clip = source.clip.at_size(self.image_size)
        if not self.config.text_depends_on_image and self.clip.text is not None:
            self.text_features = source.encode_texts().detach()[0]
            self.clip.drop_text_tower()

    def to_checkpoint(self) -> Checkpoint:
        """Return what was learned, finished text features if there are any, and settings.

        No backbone weights.
        """
        tensors = {f"adapter.{name}": tensor for name, tensor in self.adapter.state_dict().items()}
        if not self.config.text_depends_on_image:
            if self.clip.text is not None:
                self.finish_texts()
            tensors["text_features"] = self.text_features
        return self._checkpoint(tensors)

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: Checkpoint,
        *,
        clip_weights: Weights | None = None,
        with_text_tower: bool = False,
        organ: str | None = None,
        class_name: str | None = None,
    ) -> AdaCLIP:
        """Build the detector.

        Args:
            checkpoint: what :meth:`to_checkpoint` returned.
            clip_weights: the backbone's weights, overriding what the checkpoint names.
            with_text_tower: build the text tower even if predicting does without, to train further or to
                change the class name.
            organ, class_name: what the images show, instead of what the checkpoint's texts say: as for
                :meth:`assemble`. Texts are encoded anew, from the prompts that the checkpoint holds.

        Raises:
            ModelNotReady: if the checkpoint is another method's or incomplete, or the backbone's weights are
                missing, do not fit, or are not those that the detector was trained with.
        """
        config, threshold = cls._read(checkpoint, AdaCLIPSettings)
        named = name_of(organ, class_name)
        anew = named not in (None, config.class_name)
        config = config if named is None else replace(config, class_name=named)
        dynamic = config.text_depends_on_image
        text_features = None if dynamic else stored_texts(checkpoint)
        clip = cls._clip_of(checkpoint, config, clip_weights, text=anew or with_text_tower or dynamic)
        config = config.resolve(clip)
        detector = cls(
            clip,
            config,
            adapter=AdaCLIPAdapter.build(config, clip, part_of(checkpoint.tensors, "adapter.")),
            text_features=None if anew else text_features,
            threshold=threshold,
        )
        return detector._keep_text_tower(with_text_tower).eval()

    def _keep_text_tower(self, wanted: bool) -> AdaCLIP:
        if not wanted and not self.config.text_depends_on_image:
            self.clip.drop_text_tower()
        return self

    def _speak_of(self, name: str, clip: FrozenCLIP) -> None:
        """Names another class in the texts, with the text tower of ``clip``."""
        previous = self.config
        self.config = replace(self.config, class_name=name).resolve(self.clip)
        try:
            if self.config.text_depends_on_image:
                self._state_tokens()
            else:
                self.finish_texts(clip)
        except (ModelNotReady, ValueError):
            self.config = previous
            raise

    def _state_tokens(self, name: str | None = None, clip: FrozenCLIP | None = None) -> StateTokens:
        """Return the tokenised texts of a class, by default the detector's, on its device.

        Made once per class.
        """
        name = self.config.class_name if name is None else name
        if name not in self._tokens or self._tokens[name].ids.device != self.device:
            # What inference mode makes could not be used in training later.
            with torch.inference_mode(False):
                length = 1 + self.config.prompt_length
                self._tokens[name] = state_tokens(clip or self.clip, name, min_length=length)
        return self._tokens[name]

    def _texts_of(self, frozen: Tensor | None, class_name: str, clip: FrozenCLIP | None = None) -> Tensor:
        # In full precision: the logits are a hundred times the cosines, and rounding here cost more than in
        # the image tower.
        dynamic = self.config.text_depends_on_image
        with torch.autocast(self.device.type, enabled=False):
            return prompted_texts(
                clip or self.clip,
                self.adapter,
                self._state_tokens(class_name, clip),
                certain(frozen).float() if dynamic else None,
                class_name=class_name,
            )
