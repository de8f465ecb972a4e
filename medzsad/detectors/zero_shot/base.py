"""What plain CLIP and WinCLIP share: two finished text features, and checkpoints that hold nothing else."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from medzsad.detectors.base import CLIP_MEAN, CLIP_STD, AnomalyDetector, Prediction
from medzsad.detectors.checkpoint import Checkpoint
from medzsad.detectors.clip.backbone import FrozenCLIP
from medzsad.detectors.clip.detector import (
    CLIPDetector,
    Weights,
    build_any_clip,
    require_named_weights,
    stored_texts,
)
from medzsad.detectors.clip.generic import GenericCLIP
from medzsad.detectors.clip.settings import CLIPSettings
from medzsad.detectors.clip.state_prompts import encode_states, pool_states, state_prompts
from medzsad.detectors.organs import vocabulary
from medzsad.detectors.scoring import joint_score, pool_map, similarity_logits
from medzsad.detectors.zero_shot.settings import TrainingFreeSettings
from medzsad.errors import ModelNotReady, certain

TWO_PROMPTS = ("a photo of a normal {}", "a photo of an anomalous {}")


class TrainingFreeDetector(CLIPDetector):
    """A detector that compares features of CLIP with texts; nothing was learned for it.

    The text tower is needed once, for the texts, and dropped.

    Args:
        clip: the backbone.
        config: the settings; Nones are decided for ``clip``.
        text_features: float32 (2, D), row 0 normal; needed if ``clip`` has no text tower.
        threshold: see the base class.

    Raises:
        ModelNotReady: if settings or text features do not fit the backbone, or it lacks a text tower that is
            needed.
        BadInput: if the settings name an unknown organ.
    """

    uses_organ: bool = True
    settings_class: ClassVar[type[TrainingFreeSettings]]
    config: TrainingFreeSettings
    made_with: ClassVar[str] = "the detector's texts were encoded with"

    def __init__(
        self,
        clip: FrozenCLIP | GenericCLIP,
        config: TrainingFreeSettings | None = None,
        *,
        text_features: Tensor | None = None,
        threshold: float | str = 0.5,
    ) -> None:
        config = (config or self.settings_class()).resolve(clip)
        mean, std = getattr(clip, "mean", CLIP_MEAN), getattr(clip, "std", CLIP_STD)
        super().__init__(image_size=certain(config.image_size), mean=mean, std=std, threshold=threshold)
        self.clip = clip
        self.config = config
        if text_features is None:
            text_features = encode_words(clip, config)
        self._keep_texts(text_features)
        clip.drop_text_tower()

    @classmethod
    def build(
        cls, config: TrainingFreeSettings | None = None, *, clip_weights: Weights | None = None
    ) -> Self:
        """Build the detector.

        Args:
            config: the settings.
            clip_weights: overrides ``config.clip_weights``; if both are None, weights are random.

        Raises:
            ModelNotReady: if the settings are impossible, or the backbone's weights are missing or misfit.
            BadInput: if the settings name an unknown organ.
        """
        config = config or cls.settings_class()
        vocabulary(config.organ)  # a wrong name is told before weights are looked for
        return cls(build_any_clip(config, clip_weights, text=True), config).eval()

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
        """Build the detector from the settings of a zoo entry; see the base class.

        Raises:
            ModelNotReady: if an adapter is given, or the backbone's weights are missing or do not fit.
            BadInput: if the organ is unknown.
        """
        if adapter is not None:
            raise ModelNotReady(f"{adapter}: method {cls.method!r} is training-free and takes no adapter")
        values = dict(settings)
        threshold = values.pop("threshold", 0.5)
        if clip_weights is not None:
            values.setdefault("clip_weights", str(clip_weights))  # not the default, which these are not
        config = about(cls.settings_class.from_dict(values), organ, class_name)
        require_named_weights(config, clip_weights)
        detector = cls.build(config, clip_weights=clip_weights)
        detector.threshold = threshold
        return detector

    @property
    def class_name(self) -> str:
        """What the texts say that images show."""
        return _class_name(self.config)

    def for_classes(self, names: Iterable[str], *, organ: str | None = None) -> dict[str, AnomalyDetector]:
        """See the base class."""
        configs = {name: about(self.config, organ, name) for name in names}
        said = (self.config.organ, self.class_name)
        same = {name for name, config in configs.items() if (config.organ, name) == said}
        found: dict[str, AnomalyDetector] = dict.fromkeys(same, self)
        if len(same) < len(configs):
            clip = self.clip.with_text_tower()
            for name in configs.keys() - same:
                found[name] = other = self._copy()
                other.config, other.text_features = configs[name], encode_words(clip, configs[name])
        return {name: found[name] for name in configs}

    @abc.abstractmethod
    def detect(self, inputs: Tensor, texts: Tensor | None = None) -> Prediction:
        """Predicts; the map is of the size of ``inputs``.

        Args:
            inputs: float32 (B, 3, S, S), normalised.
            texts: float32 (2, D), instead of the detector's own text features.
        """

    def abnormal_probability(self, features: Tensor, texts: Tensor | None = None) -> Tensor:
        """Probability of "abnormal" (...) for features (..., D) of any length; float32."""
        texts = self.text_features if texts is None else texts
        return similarity_logits(features, texts, self.config.temperature).softmax(-1)[..., 1]

    def prediction(self, maps: Tensor, probability: Tensor) -> Prediction:
        """Return the map (B, H, W) and image probabilities (B,), with the image score made from them."""
        return Prediction(
            maps, joint_score(probability, pool_map(maps), self.config.joint_weight), probability
        )

    def _prepare_graph(self, source: Self) -> None:
        self.clip = source.clip.at_size(self.image_size)

    def graph_texts(self) -> Words:
        """Return the texts, of which a graph holds nothing."""
        return Words(self.config, self.text_features.clone(), self.clip.rebuild)

    def to_checkpoint(self) -> Checkpoint:
        """Finished text features and settings, without the backbone's weights."""
        return self._checkpoint({"text_features": self.text_features})

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: Checkpoint,
        *,
        clip_weights: Weights | None = None,
        organ: str | None = None,
        class_name: str | None = None,
    ) -> Self:
        """Build the detector, without any text tower unless an organ or a class name is given.

        Args:
            checkpoint: what :meth:`to_checkpoint` returned.
            clip_weights: the backbone's weights, overriding what the checkpoint names.
            organ: what the images show, instead of what the checkpoint's texts say; they are encoded anew.
            class_name: the same in words, instead of the organ's own name.

        Raises:
            BadInput: if the organ is unknown.
            ModelNotReady: if the checkpoint is another method's or incomplete, or the backbone's weights are
                missing, do not fit, or are not those that the texts were encoded with.
        """
        config, threshold = cls._read(checkpoint, cls.settings_class)
        text_features: Tensor | None = stored_texts(checkpoint)
        anew = organ is not None or class_name is not None
        if anew:
            config, text_features = about(config, organ, class_name), None
        clip = cls._clip_of(checkpoint, config, clip_weights, text=anew)
        return cls(clip, config, text_features=text_features, threshold=threshold).eval()

    @staticmethod
    def _build_clip(
        config: CLIPSettings, clip_weights: Weights | None, *, text: bool
    ) -> FrozenCLIP | GenericCLIP:
        return build_any_clip(config, clip_weights, text=text)


@dataclass(frozen=True)
class Words:
    """Texts about one class, and how to have those about another; see :class:`.protocols.GraphTexts`.

    Attributes:
        config: the settings that choose them.
        features: float32 (2, D).
        rebuild: gives a CLIP with its text tower; None if there is none to be had.
    """

    config: TrainingFreeSettings
    features: Tensor
    rebuild: Callable[[], FrozenCLIP | GenericCLIP] | None

    @property
    def class_name(self) -> str:
        """What they say that images show."""
        return _class_name(self.config)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of theirs, as the detector's."""
        return {
            "organ": self.config.organ,
            "class_name": self.class_name,
            "ensemble": self.config.ensemble,
        }

    @property
    def can_change(self) -> bool:
        """Whether a text tower can be had."""
        return self.rebuild is not None

    def for_classes(self, names: Iterable[str], organ: str | None) -> dict[str, Words]:
        """Return texts about each of several classes.

        Raises:
            BadInput: if the organ is unknown.
            ModelNotReady: if the text tower cannot be had, or a name is too long for it.
        """
        clip = certain(self.rebuild)()
        configs = {name: about(self.config, organ, name) for name in names}
        return {
            name: replace(self, config=config, features=encode_words(clip, config))
            for name, config in configs.items()
        }


def about(config: Any, organ: str | None, class_name: str | None) -> Any:
    """Return the settings for other images; an organ brings its own class name unless one is given."""
    if organ is not None:
        vocabulary(organ)  # a wrong name is told before weights are looked for
        config = replace(config, organ=organ, class_name=None)
    return config if class_name is None else replace(config, class_name=class_name)


def _class_name(config: TrainingFreeSettings) -> str:
    return vocabulary(config.organ).class_name if config.class_name is None else config.class_name


@torch.no_grad()
def encode_words(clip: FrozenCLIP | GenericCLIP, config: TrainingFreeSettings) -> Tensor:
    """Text features (2, D) of the words that ``config`` chooses, L2-normalised; row 0 normal, row 1 abnormal.

    Raises:
        ModelNotReady: if ``clip`` has no text tower, or the class name is too long for it.
        BadInput: if the organ is unknown.
    """
    words = vocabulary(config.organ)
    name = _class_name(config)
    states, templates = words.states, words.templates
    if config.ensemble == "two":
        states, templates = ((TWO_PROMPTS[0],), (TWO_PROMPTS[1],)), ("{}",)
    try:
        if isinstance(clip, FrozenCLIP):
            return encode_states(clip, name, templates=templates, states=states)
        normal, abnormal = state_prompts(name, templates=templates, states=states)
    except ValueError as error:
        raise ModelNotReady(str(error)) from error
    return pool_states(clip.encode_texts(normal + abnormal), len(normal))
