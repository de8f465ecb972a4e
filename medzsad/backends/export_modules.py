"""What a graph holds of a detector: images of one size in, map, score and probability out.

Graphs have no Python, so two detectors are written differently here than in their own modules; the numbers
are the same, and every graph is compared with PyTorch before it is used.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeGuard

import torch
from torch import Tensor, nn

from medzsad.detectors.adaclip.model import AdaCLIP
from medzsad.detectors.base import AnomalyDetector, Prediction, SlicePrediction, resize_maps
from medzsad.detectors.clip.backbone import FrozenCLIP
from medzsad.detectors.headclip.model import HeadCLIP
from medzsad.detectors.mini.model import MedzsadMini, is_colour
from medzsad.detectors.mini.network import MiniNetwork
from medzsad.detectors.zero_shot.base import TrainingFreeDetector
from medzsad.detectors.zero_shot.winclip import WinCLIP, window_patches
from medzsad.errors import BadInput
from medzsad.limits import check_batch


class ImageSide(nn.Module):
    """What a detector computes of pre-processed images, as a pure function of tensors.

    Args:
        detector: the detector; images are of its size (:func:`at_size`).
    """

    def __init__(self, detector: AnomalyDetector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, inputs: Tensor, texts: Tensor | None = None) -> tuple[Tensor, ...]:
        """Map (B, h, w) of the method's own resolution, score (B,) and probability (B,), float32 in [0, 1].

        Of a detector that marks the brain, also its map (B, h, w).

        Args:
            inputs: float32 (B, 3, S, S), normalised.
            texts: float32 (2, D), instead of the detector's own, if :func:`takes_texts`.
        """
        with self._with_texts(texts):
            raw = self.detect(inputs)
        maps, score = (value.float().clamp(0, 1) for value in raw[:2])
        # Where both are one number, the exporter trips over two outputs that are computed alike.
        same = raw.image_probability is raw.image_score
        probability = score.clone() if same else raw.image_probability.float().clamp(0, 1)
        return maps, score, probability, *(extra.float() for extra in raw[3:])

    def detect(self, inputs: Tensor) -> Prediction | SlicePrediction:
        """See :meth:`AnomalyDetector.detect`."""
        return self.detector.detect(inputs)

    @contextmanager
    def _with_texts(self, texts: Tensor | None) -> Iterator[None]:
        buffers = self.detector._buffers
        own = buffers.get("text_features")
        if texts is not None:
            buffers["text_features"] = texts
        try:
            yield
        finally:
            if texts is not None:
                buffers["text_features"] = own


class WholeDetector(nn.Module):
    """All that :class:`AnomalyDetector` does to images of its size, without its checks.

    Args:
        inner: the image side.
    """

    def __init__(self, inner: ImageSide) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map (B, H, W), score (B,) and probability (B,) of images (B, 3, H, W); all float32 in [0, 1]."""
        maps, score, probability = self.inner(self.inner.detector.preprocess(images))
        return resize_maps(maps, tuple(images.shape[-2:])), score, probability


class RoutedMini(ImageSide):
    """medzsad-mini with its two networks, each image going through the one made for it.

    In PyTorch the batch is divided. A graph could do that with indices, but then tensors have sizes that only
    the images tell, batches of none among them, which runtimes plan badly or refuse. Running both networks
    on everything and choosing would always cost twice as much. So each network is the body of an ``If`` that
    asks whether the batch has any image for it: the usual batch, all grey or all in colour, runs one network
    once. A mixed batch runs both on all images, whose numbers do not depend on each other.
    """

    detector: MedzsadMini

    def detect(self, inputs: Tensor) -> Prediction | SlicePrediction:
        first, *others = self.detector.networks_in_use()
        if not others:
            return self.detector.detect(inputs)
        coloured = is_colour(inputs)
        colour = torch.cond(coloured.any(), _body(self.detector, *others[0]), _nothing, (inputs,))
        grey = torch.cond((~coloured).any(), _body(self.detector, *first), _nothing, (inputs,))
        chosen = (
            torch.where(coloured.view(-1, *[1] * (one.ndim - 1)), one, other)
            for one, other in zip(colour, grey, strict=True)
        )
        return Prediction(*chosen)


def networks_of(detector: AnomalyDetector) -> tuple[AnomalyDetector, ...]:
    """Return a detector as one for each of its networks: :func:`is_colour` says whose an image is.

    Whoever can divide a batch needs no :class:`RoutedMini`, whose graph takes long to make and runs both
    networks on all images of a mixed batch.

    Returns:
        The detector alone; of a medzsad-mini with several networks, one for slices of volumes, or one for
        grey images and one for coloured ones, which share its weights.
    """
    if not isinstance(detector, MedzsadMini) or not (detector.colour_network or detector.slice_network):
        return (detector,)
    parts = []
    for kind, network in detector.networks_in_use():
        alone = copy.copy(detector)
        # Only what its graph holds; the rest of the weights would count for its size and its key.
        alone._modules = {"network": None, "colour_network": None, "slice_network": None}
        alone._modules["slice_network" if network is detector.slice_network else "network"] = network
        alone.kind = kind
        parts.append(alone)
    return tuple(parts)


class WholeWinCLIP(ImageSide):
    """WinCLIP with all windows of all images in one batch: a graph has no loop over parts of it."""

    detector: WinCLIP

    def __init__(self, detector: WinCLIP) -> None:
        super().__init__(detector)
        # On this object alone; at_size takes it back.
        detector.__dict__["window_features"] = self.window_features

    def window_features(self, tokens: Tensor, grid: tuple[int, int], side: int) -> Tensor:
        """See :meth:`WinCLIP.window_features`."""
        clip, prefix = self.detector.clip, tokens.shape[1] - grid[0] * grid[1]
        patches = window_patches(grid, side) + prefix
        index = torch.cat([torch.arange(prefix).expand(len(patches), -1), patches], 1)
        windows = tokens[:, index.to(tokens.device)].flatten(0, 1)
        return clip.class_feature(clip.run_blocks(windows, class_only=True).tokens).unflatten(
            0, (-1, len(index))
        )


def takes_texts(detector: AnomalyDetector) -> TypeGuard[TrainingFreeDetector]:
    """Whether a graph of the detector gets the texts as an input, so that one graph serves all classes."""
    return isinstance(detector, TrainingFreeDetector)


def image_side(detector: AnomalyDetector) -> ImageSide:
    """Return the part of a detector that can be a graph.

    Raises:
        BadInput: see :func:`check_detector`.
    """
    check_detector(detector)
    if isinstance(detector, MedzsadMini):
        return RoutedMini(detector)
    return WholeWinCLIP(detector) if isinstance(detector, WinCLIP) else ImageSide(detector)


def check_detector(detector: AnomalyDetector) -> None:
    """Refuses what cannot be a graph.

    Raises:
        BadInput: if the method cannot, or the weights were rounded.
    """
    rounded = {p.dtype for p in detector.parameters() if p.is_floating_point()} - {torch.float32}
    if rounded:
        raise BadInput(
            f"{detector.name}: its matrices are kept in {detector.precision}; load it with precision 'fp32' "
            "to export it"
        )
    if isinstance(detector, AdaCLIP) and detector.config.fusion != "off":
        raise BadInput(
            f"{detector.name}: AdaCLIP groups patches by k-means for its image score (fusion "
            f"{detector.config.fusion!r}), which ONNX cannot express; only fusion 'off' can be exported"
        )


@contextmanager
def at_size(detector: AnomalyDetector, side: int) -> Iterator[AnomalyDetector]:
    """Return the detector, working at images of ``side`` pixels and without autocast; afterwards as it was.

    The position embedding is resized and texts are encoded beforehand, so that a graph holds the results.

    Raises:
        BadInput: if the method cannot work at that size.
    """
    check_batch(side, 2, f"an image size of {side}")
    clip = getattr(detector, "clip", None)
    stored: list[tuple[object, str, object]] = [
        (detector, "image_size", side),
        (detector, "precision", "fp32"),
    ]
    try:
        if isinstance(clip, FrozenCLIP):
            grid = clip.grid((side, side))
            positions = nn.Parameter(clip.position_embedding(grid).clone(), requires_grad=False)
            stored += [(clip.visual, "positional_embedding", positions), (clip.visual, "grid_size", grid)]
        elif clip is not None:
            clip.grid(torch.empty(1, 3, side, side))
        elif isinstance(detector, MedzsadMini) and side % 16:
            raise ValueError(f"image size {side} is no multiple of 16")
    except ValueError as error:
        raise BadInput(f"{detector.name} cannot work at {side} pixels: {error}") from error
    if (
        isinstance(detector, HeadCLIP | AdaCLIP)  # training-free ones keep no text tower
        and detector.clip.text is not None
        and not _texts_depend_on_images(detector)
    ):
        # As in encode_texts, whose leading axis of one AdaCLIP alone has.
        texts = detector.encode_texts().detach().reshape(detector.text_features.shape)
        stored += [(detector, "text_features", texts), (detector.clip, "text", None)]
    previous = [(owner, name, getattr(owner, name)) for owner, name, _ in stored]
    try:
        for owner, name, value in stored:
            setattr(owner, name, value)
        yield detector
    finally:
        detector.__dict__.pop("window_features", None)  # WholeWinCLIP's
        for owner, name, value in previous:
            setattr(owner, name, value)


def _texts_depend_on_images(detector: AnomalyDetector) -> bool:
    return isinstance(detector, AdaCLIP) and detector.config.text_depends_on_image


def _body(detector: MedzsadMini, kind: str, network: MiniNetwork) -> Callable[[Tensor], tuple[Tensor, ...]]:
    def run(inputs: Tensor) -> tuple[Tensor, ...]:
        # Branches of torch.cond must neither share memory with their inputs nor differ in strides.
        return tuple(value.contiguous().clone() for value in detector._detect(network, inputs, kind))

    return run


def _nothing(inputs: Tensor) -> tuple[Tensor, ...]:
    """Zeros of the shapes that :func:`_body` gives, for a network that no image is for."""
    none = inputs[:, 0, 0, 0] * 0
    return (inputs[:, 0, ::2, ::2] * 0).contiguous(), none, none.clone()
