"""The one interface of all detectors: a batch of images in, anomaly maps and scores out."""

from __future__ import annotations

import abc
import copy
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medzsad.detectors.checkpoint import Checkpoint
from medzsad.detectors.devices import float32_products
from medzsad.detectors.normal_scores import NormalScores
from medzsad.detectors.prediction import Prediction, SlicePrediction, resize_maps
from medzsad.detectors.protocols import GraphTexts
from medzsad.detectors.volume_rules import NO_RULES, VolumeRules
from medzsad.errors import BadInput, ModelNotReady
from medzsad.limits import check_batch
from medzsad.scans.scan import Modality, Scan

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
Module = TypeVar("Module")  # a torch module; towers are known by protocols
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""What autocast multiplies matrices in, by :attr:`AnomalyDetector.precision`; fp32 and tf32 go without."""


class AnomalyDetector(nn.Module, abc.ABC):
    """Images to anomaly maps and scores. Owns its pre-processing, so callers need not know the method.

    Subclasses implement :meth:`detect` on pre-processed images, and the checkpoint pair
    :meth:`to_checkpoint` / :meth:`from_checkpoint`.

    Args:
        image_size: side in pixels of the square input the method works at.
        mean, std: per-channel normalisation applied after resizing.
        threshold: default threshold of the anomaly map: a number in [0, 1], ``"pNN"`` or ``"otsu"``.

    Attributes:
        name: what it was loaded as.
        seen: data sets that it was trained on; on these its results are not zero-shot.
        seen_classes: what its texts named in training, as far as its checkpoint tells; empty if they name
            nothing.
    """

    mean: Tensor
    std: Tensor
    method: str
    uses_organ: bool = False
    """Whether the texts can name what the images show (``--organ``, ``--class-name``)."""
    framing: str = "whole"
    """What the method was made for: ``"whole"`` images resized to a square, or the ``"foreground"`` alone."""
    tells_colours: bool = False
    """Whether images in colour go another way than grey ones, told by their channels. Such a detector gets
    one window of a CT, for several would look like colours: see :mod:`medzsad.scans.modality`."""
    neighbour_mm: float | None = None
    """For detectors of slices that see their neighbours: how far below and above these are, in mm. Then the
    three channels are the slice, the one below and the one above, see :mod:`.volume_intensity`."""
    uses_heights: bool = False
    """Whether slices of a volume come with where they lie in it (:meth:`at_heights`)."""
    any_modality: bool = False
    """Whether scans of a modality are taken that :meth:`check_scan` would refuse."""
    volume_rules: VolumeRules = NO_RULES
    """What is done with the maps of volumes by default: see :mod:`medzsad.detectors.volume_rules`."""
    normal_scores: tuple[NormalScores, ...] = ()
    """The scores that it gives normal volumes by default: see :mod:`medzsad.detectors.normal_scores`."""
    bounded_in_bf16: ClassVar[bool] = True
    """Whether bf16 moves maps by at most 1e-2 and scores by about 1e-3; else precision ``"auto"`` is fp32."""

    def __init__(
        self,
        *,
        image_size: int,
        mean: tuple[float, float, float] = CLIP_MEAN,
        std: tuple[float, float, float] = CLIP_STD,
        threshold: float | str = 0.5,
    ) -> None:
        super().__init__()
        check_batch(image_size, 1, f"image_size {image_size}", ModelNotReady)
        self.image_size = int(image_size)
        self.threshold = threshold
        self.precision = "fp32"
        self.name = self.method
        self.seen: tuple[str, ...] = ()
        self.seen_classes: tuple[str, ...] = ()
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    @property
    def device(self) -> torch.device:
        """The device that the detector computes on."""
        return self.mean.device

    def __repr__(self) -> str:
        """Return one line: PyTorch's own lists every layer."""
        size, where = self.image_size, self.device
        return f"{type(self).__name__}({self.name!r}, image_size={size}, {self.precision} on {where})"

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that determine the numbers, JSON-serialisable: written into every result."""
        return {"image_size": self.image_size, "precision": self.precision}

    def use_precision(self, precision: str) -> None:
        """Decide what matrices are multiplied in: ``"fp32"``, ``"tf32"`` (GPUs), ``"bf16"`` or ``"fp16"``.

        A CLIP keeps its matrices in it from then on (:mod:`.clip.precision`); training, whose
        precision is autocast's alone, sets :attr:`precision` instead.
        """
        self.precision = precision
        clip = getattr(self, "clip", None)
        if clip is not None:
            from medzsad.detectors.clip.precision import hold_matrices

            hold_matrices(clip, DTYPES.get(precision, torch.float32))

    @property
    def marks_brain(self) -> bool:
        """Whether its predictions also say where the brain is (:class:`SlicePrediction`)."""
        return False

    @property
    def class_name(self) -> str | None:
        """What the texts say that images show, such as ``"metal_nut"``; None for a method without texts."""
        return None

    @property
    def parts(self) -> tuple[AnomalyDetector, ...]:
        """A detector and the profile of normals joined to it; empty for a detector that is no combination."""
        return ()

    def check_scan(self, scan: Scan) -> None:
        """Raise BadInput for a scan that the detector was not made for; as a rule it takes all."""

    def at_heights(self, heights: Tensor) -> AnomalyDetector:
        """Return the detector for a batch of slices at these places; as a rule, itself.

        Args:
            heights: float32 (B,), relative heights along the stack: 0 at one end of the foreground, 1 at the
                other.
        """
        return self

    def for_classes(self, names: Iterable[str], *, organ: str | None = None) -> dict[str, AnomalyDetector]:
        """Return this detector with texts about each of several classes; all share its weights.

        Texts are encoded once per class, here, and a text tower that was dropped is loaded once for all of
        them. A method whose texts name nothing is itself for every class.

        Args:
            names: what images show, e.g. ``"brain"``; hyphens become spaces in texts, underscores stay.
            organ: take the phrases of this organ (:mod:`medzsad.detectors.organs`), for the methods that have
                such; None leaves them as they are.

        Returns:
            A detector by name.

        Raises:
            BadInput: if the organ is unknown, or a name is too long for texts.
            ModelNotReady: the same of a name; or if texts cannot be encoded anew.
        """
        return dict.fromkeys(names, self)

    def _copy(self) -> Self:
        """Return a detector with the same parameters, whose settings, buffers and parts are its own."""
        return shallow_copy(self)

    def for_volume(self, *, colour: bool = False) -> AnomalyDetector:
        """Return the detector for slices of one volume, whose intensities are comparable; as a rule, itself.

        Args:
            colour: of a volume in colour, such as a film.
        """
        return self

    def network_for(self, modality: Modality) -> int | None:
        """Return which of :meth:`networks` is for 2D images of a modality; None if :meth:`route` decides."""
        return None

    def for_modality(self, modality: Modality) -> AnomalyDetector:
        """Return the detector for images of this modality; as a rule, itself.

        What is known to be of radiology must not go another way because of what it looks like.
        """
        return self

    def for_images(self, images: Tensor) -> AnomalyDetector:
        """Return the detector for images that look like these, with their threshold; as a rule, itself.

        What :meth:`for_modality` does where the modality is not known.

        Args:
            images: float32 (B, 3, H, W) in [0, 1]; most of them decide.
        """
        return self

    @property
    def own_thresholds(self) -> dict[str, float | str]:
        """Default thresholds of kinds of images that have one of their own, by kind; as a rule, none."""
        return {}

    def check_graph(self) -> None:
        """Refuse what cannot be a graph (:class:`~medzsad.detectors.protocols.Exportable`, as the next four).

        Raises:
            BadInput: if the method cannot, or the weights were rounded.
        """
        if any(p.is_floating_point() and p.dtype != torch.float32 for p in self.parameters()):
            raise BadInput(
                f"{self.name}: its matrices are kept in {self.precision}; load it with precision 'fp32' to "
                "export it"
            )

    def for_graph(self, side: int) -> Self:
        """Return a copy as a graph can hold it, at images of ``side`` pixels and without autocast."""
        self.check_graph()
        check_batch(side, 2, f"an image size of {side}")
        other = self._copy()
        other.image_size, other.precision = side, "fp32"
        try:
            other._prepare_graph(self)
        except ValueError as error:
            raise BadInput(f"{self.name} cannot work at {side} pixels: {error}") from error
        return other

    def at_size(self, side: int) -> Self:
        """Return a detector of the same weights for a first pass at ``side`` pixels, fewer than its own.

        Raises:
            BadInput: if it works at one size alone, or not at this one.
        """
        raise BadInput(f"{self.name} works at {self.image_size} pixels alone; leave `first_pass` out.")

    def _at_size(self, side: int, multiple_of: int) -> Self:
        check_batch(side, 1, f"`first_pass` {side}")
        if side % multiple_of or not 0 < side < self.image_size:
            raise BadInput(
                f"`first_pass` {side}: {self.name} takes a multiple of {multiple_of} pixels below "
                f"{self.image_size}"
            )
        other = self._copy()
        other.image_size = side
        return other

    def _prepare_graph(self, source: Self) -> None:
        """Change this copy of ``source`` into what a graph can hold; ValueError if it cannot be so large."""

    def networks(self) -> tuple[AnomalyDetector, ...]:
        """Return itself: all images go through the same network."""
        return (self,)

    @staticmethod
    def route(inputs: Tensor) -> Tensor:
        """Return zeros, int64 (B,): all images go through the first network."""
        return inputs.new_zeros(len(inputs), dtype=torch.int64)

    def graph_texts(self) -> GraphTexts | None:
        """Return None: a graph holds finished texts, if there are any."""
        return None

    def preprocess(self, images: Tensor) -> Tensor:
        """Resizes (bicubic, antialiased, as CLIP does) to ``image_size`` and normalises.

        Args:
            images: float32 (B, 3, H, W) in [0, 1].

        Returns:
            float32 (B, 3, image_size, image_size).
        """
        size = (self.image_size, self.image_size)
        if images.shape[-2:] != size:
            images = F.interpolate(images, size, mode="bicubic", antialias=True, align_corners=False).clamp(
                0, 1
            )
        return (images - self.mean) / self.std

    @abc.abstractmethod
    def detect(self, inputs: Tensor) -> Prediction | SlicePrediction:
        """Run the method on pre-processed images; the map may be at any resolution of the same aspect.

        Args:
            inputs: float32 (B, 3, image_size, image_size), normalised.
        """

    @torch.inference_mode()
    def forward(self, images: Tensor) -> Prediction | SlicePrediction:
        """Predicts.

        Args:
            images: float32 (B, 3, H, W) in [0, 1], on any device.

        Returns:
            The prediction, float32, on the detector's device, with a map of the images' own H and W.

        Raises:
            ValueError: if ``images`` has another shape, another type or values outside [0, 1].
        """
        prediction = self.predict_at_own_size(images)
        size = tuple(images.shape[-2:])
        maps = {
            name: resize_maps(getattr(prediction, name), size)
            for name in ("anomaly_map", "brain")
            if hasattr(prediction, name)
        }
        return prediction._replace(**maps)

    @torch.inference_mode()
    def predict_at_own_size(self, images: Tensor) -> Prediction | SlicePrediction:
        """As :meth:`forward`, but with the map at the resolution that the method gives.

        ``resize_maps`` brings it to the images' size.
        """
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
            raise ValueError(f"expected float images (B, 3, H, W), got {images.dtype} {tuple(images.shape)}")
        images = images.to(self.device, torch.float32)
        if images.numel() and not (images.amin() >= -1e-4 and images.amax() <= 1 + 1e-4):
            raise ValueError("expected image values in [0, 1] without NaN")
        dtype = DTYPES.get(self.precision)
        autocast = torch.autocast(self.device.type, dtype, enabled=dtype is not None)
        with float32_products(self.precision, self.device), autocast:
            raw = self.detect(self.preprocess(images))
        return type(raw)(*(value.float().clamp(0, 1) for value in raw))

    @abc.abstractmethod
    def to_checkpoint(self) -> Checkpoint:
        """Return what must be stored to build this detector again.

        See :mod:`medzsad.detectors.checkpoint`.
        """

    @classmethod
    @abc.abstractmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, *, clip_weights: str | None = None) -> AnomalyDetector:
        """Build the detector from a checkpoint.

        Args:
            checkpoint: what :meth:`to_checkpoint` returned.
            clip_weights: for CLIP-based methods, the backbone's weights (an open_clip pretrained tag or a
                local file), overriding what the checkpoint names.

        Raises:
            ModelNotReady: if the backbone's weights are missing or do not fit.
        """

    @classmethod
    def own_settings(cls, checkpoint: Checkpoint) -> dict[str, Any]:
        """Return the settings in a checkpoint of this method.

        Raises:
            ModelNotReady: if it is another method's.
        """
        if checkpoint.method != cls.method:
            raise ModelNotReady(f"a checkpoint of method {checkpoint.method!r}, not {cls.method!r}")
        return dict(checkpoint.settings)

    @classmethod
    def assemble(
        cls,
        settings: Mapping[str, Any],
        *,
        clip_weights: str | Path | None = None,
        adapter: str | Path | None = None,
        organ: str | None = None,
        class_name: str | None = None,
    ) -> AnomalyDetector:
        """Build the detector from the parts that an entry of the model zoo names.

        Args:
            settings: the method's settings, as stored in a checkpoint; what is left out has its default.
            clip_weights: the backbone's weights: a file, or an open_clip tag.
            adapter: the file of what was learned, in the layout of the authors' published checkpoints.
            organ: what the images show, a key of :mod:`medzsad.detectors.organs`; None is object-agnostic.
            class_name: the same in words, instead of the organ's own name.

        Raises:
            ModelNotReady: if a part is missing or does not fit, or the method has no use for it.
        """
        raise ModelNotReady(f"method {cls.method!r} can only be built from a checkpoint of medzsad's own")


def shallow_copy(module: Module) -> Module:
    """Return a module with the same parameters and parts; what is replaced in it stays in ``module``."""
    other = copy.copy(module)
    for name in ("_parameters", "_buffers", "_modules"):
        setattr(other, name, dict(getattr(module, name)))
    return other
