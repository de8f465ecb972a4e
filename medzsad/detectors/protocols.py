"""What training and graphs ask of a detector, beyond what all detectors have.

Training and the backends know methods by :mod:`medzsad.detectors.registry` and by these alone; each method
answers in its own folder.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, Self, cast

from torch import Tensor, nn

from medzsad.detectors.registry import detector_class
from medzsad.errors import ModelNotReady

if TYPE_CHECKING:
    import numpy as np

    from medzsad.detectors.base import AnomalyDetector, Prediction, SlicePrediction
    from medzsad.detectors.checkpoint import Checkpoint
    from medzsad.detectors.clip.backbone import FrozenCLIP


class PublishedLoss(NamedTuple):
    """What a method's authors minimise.

    Attributes:
        image: the loss of the image logits.
        pixel: the weight of the losses of pixels, beside 1 of the image's.
        dice: what Dice is computed of.
    """

    image: Literal["cross_entropy", "focal"]
    pixel: float
    dice: Literal["image", "rows"]


class Judgement(NamedTuple):
    """What losses compare with labels and masks; index 0 is normal, 1 abnormal.

    Attributes:
        image_logits: float32 (B, 2).
        layers: per layer, probabilities float32 (B, 2, H, W); empty if no size was asked for.
    """

    image_logits: Tensor
    layers: list[Tensor]


class Trainable(Protocol):
    """A detector that can be trained here."""

    method: str
    precision: str
    image_size: int
    clip: FrozenCLIP
    settings_class: ClassVar[Any]
    published_loss: ClassVar[PublishedLoss]

    @classmethod
    def build(cls, config: Any = None, *, clip_weights: str | None = None) -> Any:
        """Return an untrained detector of these settings, with its text tower."""

    @property
    def settings(self) -> dict[str, Any]:
        """See :attr:`AnomalyDetector.settings`."""

    def trainable_parameters(self) -> list[nn.Parameter]:
        """Return what training changes."""

    def judge(
        self,
        inputs: Tensor | None,
        size: Sequence[int] | None,
        *,
        frozen: Mapping[str, Tensor] | None = None,
        class_names: Sequence[str] | None = None,
    ) -> Judgement:
        """Compare images with the texts; differentiable in everything that trains.

        Args:
            inputs: float32 (B, 3, S, S), normalised; may be None if ``frozen`` is all that is needed.
            size: height and width of the probabilities; None for none.
            frozen: what :meth:`frozen_features` gave for the images.
            class_names: what each of the B images shows, for texts that say it; None for the detector's own.
        """

    def frozen_features(self, inputs: Tensor) -> dict[str, Tensor]:
        """Return what of the images (B, 3, S, S) training does not change; tensors with B first."""

    def frozen_key(self) -> dict[str, Any]:
        """Return what :meth:`frozen_features` depend on beside settings and the image tower's weights.

        By name, what JSON can hold, or mappings of names to tensors.

        Raises:
            BadInput: if training changes all features of an image.
        """

    @classmethod
    def picture(cls, checkpoint: Checkpoint) -> np.ndarray | None:
        """Draw what was learned, uint8 (H, W, 3); None if there is nothing to be seen."""


def as_trainable(detector: AnomalyDetector) -> Trainable:
    """Return a detector as one that is trained.

    Raises:
        ModelNotReady: if its method is not trained here.
    """
    trainable_class(detector.method)
    return cast(Trainable, detector)


def trainable_class(method: str) -> type[Trainable]:
    """Return the class of a method that is trained here.

    Raises:
        ModelNotReady: if there is no such method, or it is not trained here.
    """
    found = detector_class(method)
    if not hasattr(found, "published_loss"):
        raise ModelNotReady(f"method {method!r} has no training; use headclip or adaclip")
    return cast("type[Trainable]", found)


class GraphTexts(Protocol):
    """Texts that a graph is given, so that one graph serves all classes; holds no weights of a tower.

    Attributes:
        features: float32 (2, D), row 0 normal.
        settings: those of the detector that say what the texts are.
        class_name: what they say that images show.
        can_change: whether a text tower can be had for other texts.
    """

    @property
    def features(self) -> Tensor: ...

    @property
    def settings(self) -> dict[str, Any]: ...

    @property
    def class_name(self) -> str: ...

    @property
    def can_change(self) -> bool: ...

    def for_classes(self, names: Iterable[str], organ: str | None) -> dict[str, Self]:
        """Return texts about other classes, see :meth:`AnomalyDetector.for_classes`."""


class Exportable(Protocol):
    """A detector that a graph can be made of. :class:`AnomalyDetector` has an answer to each for most."""

    def check_graph(self) -> None:
        """Raise BadInput if the method cannot be a graph, or the weights were rounded."""

    def for_graph(self, side: int) -> AnomalyDetector:
        """Return a copy as a graph can hold it, of the same weights; the detector stays as it is.

        It works at images of ``side`` pixels, in float32, and its texts and positions are finished. Graphs
        have no Python, so that it may compute the same numbers in another way.

        Raises:
            BadInput: as :meth:`check_graph`; or the method cannot work at that size.
        """

    def networks(self) -> tuple[AnomalyDetector, ...]:
        """Return a detector for each network that images are divided among; as a rule, itself alone."""

    @staticmethod
    def route(inputs: Tensor) -> Tensor:
        """Which of :meth:`networks` each of the images (B, 3, S, S) is for: int64 (B,)."""

    def graph_texts(self) -> GraphTexts | None:
        """Return texts that graphs get as an input, to be handed to ``detect``; None if they hold theirs."""

    def detect(self, inputs: Tensor) -> Prediction | SlicePrediction:
        """See :meth:`AnomalyDetector.detect`."""
