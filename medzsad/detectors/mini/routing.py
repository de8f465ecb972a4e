"""Which network of medzsad-mini a scan goes through, with which size of input and which threshold.

Slices of grey volumes have a network that also sees their neighbours (:meth:`RoutedDetector.for_volume`). For
images the modality decides where it is known (:meth:`RoutedDetector.for_modality`), so that radiology never
goes the way of photographs because of a colour in it. Else it is the looks: images that show colours
(:func:`is_colour`) go through the network for these, all others through the one for grey images.
"""

from __future__ import annotations

import abc
import copy
from functools import partial
from typing import Self

import torch
from torch import Tensor

from medzsad.detectors.base import AnomalyDetector, Prediction, SlicePrediction
from medzsad.detectors.mini.colour import ColourNetwork
from medzsad.detectors.mini.conditions import by_conditions
from medzsad.detectors.mini.network import FOREGROUND_LEVEL, MiniNetwork
from medzsad.detectors.mini.opinions import Opinions
from medzsad.detectors.mini.slices import SliceNetwork
from medzsad.detectors.prediction import divided
from medzsad.scans.scan import Modality

COLOUR_LEVEL = 0.03  # from this mean difference between channels on, an image is one in colour


def is_colour(images: Tensor) -> Tensor:
    """Return whether images show colours: radiology does not, cameras and endoscopes do.

    Args:
        images: float32 (B, 3, H, W) in [0, 1].

    Returns:
        bool (B,): whether the largest and the smallest channel differ by more than :data:`COLOUR_LEVEL` on
        average, outside black. The tint that compression leaves in grey images is far below that.
    """
    spread = images.amax(1) - images.amin(1)
    foreground = (images.mean(1) > FOREGROUND_LEVEL).to(images.dtype)
    mean = (spread * foreground).sum((1, 2)) / foreground.sum((1, 2)).clamp_min(1)
    return mean > COLOUR_LEVEL


class RoutedDetector(AnomalyDetector):
    """A detector that holds a network for each kind of scan, and computes with the one that is for it.

    Subclasses build the networks and compute with one of them (:meth:`_detect`). Those for images have
    numbers: 0 is for grey images, 1 for images in colour, 2 for ultrasound.

    Args:
        image_size: side of the square input.
        slice_size: the same for slices of volumes: there lesions are smaller beside the field of view; None
            for ``image_size``.
        threshold: default threshold of the anomaly map.
        slice_threshold: the same for slices of volumes; None for ``threshold``.
        colour_threshold: the same for what goes through the network for colours; None for ``threshold``.
        ultrasound_threshold: the same for the network for ultrasound; None for ``threshold``.
        photographs: give the network for colours grey images, too, that are known to be photographs, and
            ultrasound.
        neighbour_mm: how far below and above a slice its neighbours are that the network for slices sees;
            None without such a network.

    Attributes:
        kind: of what goes through its first network now, such as ``"grey"`` or ``"slice"``.
        only: number of the network that a modality or the looks have decided on; None while nothing has.
        flat_size: ``image_size`` of images, whatever this is a copy for; ``image_threshold`` likewise.
        is_graph: whether this is a copy that a graph is made of, which cannot divide a batch.
    """

    tells_colours: bool = True
    is_graph: bool = False
    network: MiniNetwork

    def __init__(
        self,
        *,
        image_size: int,
        slice_size: int | None,
        threshold: float | str,
        slice_threshold: float | str | None,
        colour_threshold: float | str | None,
        ultrasound_threshold: float | str | None,
        photographs: bool,
        neighbour_mm: float | None,
    ) -> None:
        # Mean 0 and std 1: the networks standardise each image by themselves (input_features).
        super().__init__(image_size=image_size, mean=(0, 0, 0), std=(1, 1, 1), threshold=threshold)
        self.flat_size, self.slice_size = self.image_size, int(slice_size or image_size)
        self.image_threshold = threshold
        self.slice_threshold = slice_threshold
        self.colour_threshold = colour_threshold
        self.ultrasound_threshold = ultrasound_threshold
        self.photographs = bool(photographs)
        self.slice_neighbour_mm = neighbour_mm
        self.kind = "grey"
        self.only: int | None = None
        self.colour_network: MiniNetwork | ColourNetwork | None = None
        self.ultrasound_network: ColourNetwork | None = None
        self.radiology_network: ColourNetwork | None = None
        self.opinions: Opinions | None = None
        self.slice_network: SliceNetwork | None = None

    @abc.abstractmethod
    def _detect(
        self, network: MiniNetwork | ColourNetwork, inputs: Tensor, kind: str
    ) -> Prediction | SlicePrediction:
        """Run one network on inputs (B, 3, S, S) of a kind; the maps are (B, S/2, S/2)."""

    def for_volume(self, *, colour: bool = False) -> Self:
        """Return the same detector for slices of one volume, at ``slice_size``.

        Where there is a network for slices they go through it, but for those of a volume in ``colour``,
        which go the way of images. What goes with a least peak of candidates holds for grey volumes at the
        detector's own threshold alone.
        """
        detector = copy.copy(self)
        detector.image_size = self.slice_size
        if colour or self.threshold not in (self.image_threshold, self.slice_threshold):
            detector.volume_rules = self.volume_rules.for_any_values()
        if not colour or self.slice_network is None:
            detector.kind = "slice"
            detector.neighbour_mm = self.slice_neighbour_mm
            if self.slice_threshold is not None and self.threshold == self.image_threshold:
                # Unless a caller has set another.
                detector.threshold = self.slice_threshold
        return detector

    def network_for(self, modality: Modality) -> int | None:
        """Return 0, 1 for photographs, 2 or 1 for ultrasound; None where the looks decide."""
        if self.colour_network is None or self.marks_brain or modality is Modality.GREY:
            return None
        if not self.photographs:
            return None if modality is Modality.RGB else 0
        if modality is Modality.US and self.ultrasound_network is not None:
            return 2
        return int(modality in (Modality.US, Modality.RGB))

    def for_modality(self, modality: Modality) -> Self:
        """Return the same detector for images of a modality, which may decide the network."""
        number = self.network_for(modality)
        return self if number is None else self.for_network(number)

    def for_images(self, images: Tensor) -> Self:
        """Return the same detector for images that look like these, of which most decide the network."""
        if len(self.networks_in_use()) == 1:
            return self
        colours = self.route(self.preprocess(images.to(self.device, torch.float32)))
        return self.for_network(int(2 * colours.sum() > len(colours)))

    def for_network(self, number: int) -> Self:
        """Return the same detector for the network ``number`` of those for images, with its threshold."""
        detector = copy.copy(self)
        detector.only = number
        own = [self.image_threshold, self.colour_threshold, self.ultrasound_threshold]
        if self.threshold in own:  # unless a caller has set another
            chosen = own[number]
            detector.threshold = self.image_threshold if chosen is None else chosen
        return detector

    @property
    def own_thresholds(self) -> dict[str, float | str]:
        """Thresholds of ``"colour"``, ``"ultrasound"`` and ``"slice"``, where they have one of their own."""
        own = {
            "colour": self.colour_threshold,
            "ultrasound": self.ultrasound_threshold,
            "slice": self.slice_threshold,
        }
        return {kind: threshold for kind, threshold in own.items() if threshold is not None}

    @property
    def marks_brain(self) -> bool:
        """Whether it is one for slices of volumes, with a network of their own."""
        return self.kind == "slice" and self.slice_network is not None

    def networks_in_use(self) -> list[tuple[str, MiniNetwork | ColourNetwork]]:
        """Return kind and network of what it is now used for: one, or those of grey images and of colours."""
        if self.kind == "slice" and self.slice_network is not None:
            return [("slice", self.slice_network)]
        every = self._networks_of_images()
        return every[:2] if self.only is None else [every[self.only]]

    def _networks_of_images(self) -> list[tuple[str, MiniNetwork | ColourNetwork]]:
        """Return kind and network of all that images may go through, in the order of their numbers."""
        named = (("colour", self.colour_network), ("ultrasound", self.ultrasound_network))
        others = [(kind, network) for kind, network in named if network is not None]
        return [(self.kind, self.network), *others]

    def detect(self, inputs: Tensor) -> Prediction | SlicePrediction:
        """Predict; the map has half the side of ``inputs``: float32 (B, image_size / 2, image_size / 2).

        Args:
            inputs: float32 (B, 3, image_size, image_size) in [0, 1].
        """
        used = [partial(self._detect, network, kind=kind) for kind, network in self.networks_in_use()]
        if len(used) == 1:
            return used[0](inputs)
        chosen = self.route(inputs)
        return by_conditions(inputs, chosen, used) if self.is_graph else divided(inputs, chosen, used)

    @staticmethod
    def route(inputs: Tensor) -> Tensor:
        """Return 1 for images in colour, else 0: int64 (B,)."""
        return is_colour(inputs).long()

    def networks(self) -> tuple[Self, ...]:
        """Return a detector for each network that images may go through, with its weights alone."""
        if not (self.colour_network or self.slice_network):
            return (self,)
        parts = []
        used = self.networks_in_use()
        for number, (kind, network) in enumerate(used if len(used) == 1 else self._networks_of_images()):
            for_slices = network is self.slice_network
            alone = (self if for_slices else self.for_network(self.only or number))._copy()
            alone._modules = dict.fromkeys(alone._modules)
            alone._modules["slice_network" if for_slices else "network"] = network
            if kind == "grey":
                alone._modules["opinions"] = self.opinions
            alone.kind, alone.only = kind, None
            parts.append(alone)
        return tuple(parts)

    def _prepare_graph(self, source: Self) -> None:
        if self.image_size % 16:
            raise ValueError(f"image size {self.image_size} is no multiple of 16")
        self.is_graph = True
