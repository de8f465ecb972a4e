"""medzsad-mini: the small embedded detector, HeadCLIP's image side in miniature.

As in HeadCLIP (arXiv 2505.22259), features are compared by cosine similarity with one "normal" and one
"abnormal" feature, a temperature and a softmax turn the two similarities into a map and a probability, and
the joint anomaly score mixes that probability with the maximum of the smoothed map. Unlike HeadCLIP there is
no text encoder (both features are stored), the stem is convolutional, two stages also see the left-right
mirror image of their features, and a decoder with skips brings the map to half the input's resolution. Images
in colour may have a second network, of the same kind or over features learned on photographs
(:mod:`medzsad.detectors.mini.colour`), ultrasound another over the same features, and slices of volumes one
that also sees their neighbours (:mod:`medzsad.detectors.mini.slices`); which of them a scan goes through is
said in :mod:`medzsad.detectors.mini.routing`. It is trained on synthetic anomalies (``tools/train_mini.py``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from medzsad.detectors.base import Prediction, SlicePrediction
from medzsad.detectors.checkpoint import Checkpoint
from medzsad.detectors.mini.colour import ColourNetwork, learned, load_learned
from medzsad.detectors.mini.network import MiniNetwork
from medzsad.detectors.mini.opinions import Opinions
from medzsad.detectors.mini.routing import RoutedDetector
from medzsad.detectors.mini.slices import SliceNetwork
from medzsad.detectors.normal_scores import read_normal_scores
from medzsad.detectors.volume_rules import MEASURED_RULES, VolumeRules
from medzsad.errors import ModelNotReady, certain

PREFIXES = {  # of their tensors in a checkpoint
    "colour_network": "colour.",
    "ultrasound_network": "ultrasound.",
    "radiology_network": "radiology.",
    "slice_network": "slice.",
}
KINDS = ("grey", "colour", "ultrasound", "slice")  # of images, as far as calibration is concerned
MIXED = "mixed"  # and of the scores of grey images, where other networks have a say in them
# Of maps with the U-Net and candidates in them: chosen on even volumes of shared data and normal scans.
UNET_RULES = replace(MEASURED_RULES, least_peak=0.7, relative_volume=0.005, dip=0.95, neck=1.0)
AS_IT_IS = {"map": (1.0, 0.0), "probability": (1.0, 0.0), "score": (1.0, 0.0)}


def platt(probability: Tensor, slope: float, offset: float) -> Tensor:
    """Return ``sigmoid(slope * logit(p) + offset)``: Platt scaling keeps the order, changes what values mean.

    Args:
        probability: in [0, 1], any shape.
        slope, offset: fitted on labelled data (Platt, "Probabilistic outputs for support vector machines").
    """
    if (slope, offset) == (1.0, 0.0):
        return probability
    return torch.sigmoid(slope * torch.logit(probability.float(), 1e-6) + offset)


def gaussian_smooth(maps: Tensor, sigma: float) -> Tensor:
    """Smooth maps (B, H, W) with a Gaussian of ``sigma`` pixels, borders reflected; 0 leaves them alone."""
    if sigma <= 0:
        return maps
    reach = min(int(3 * sigma + 0.5), min(maps.shape[-2:]) - 1)
    offsets = torch.arange(-reach, reach + 1, device=maps.device, dtype=maps.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma).square())
    kernel = kernel / kernel.sum()
    padded = F.pad(maps[:, None], (reach,) * 4, mode="reflect")
    return F.conv2d(F.conv2d(padded, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))[:, 0]


def tensors_of(checkpoint: Checkpoint, part: str) -> dict[str, Tensor]:
    """Return the float32 tensors of one network: ``"network"`` (grey), or a key of :data:`PREFIXES`."""
    prefix = PREFIXES.get(part, "")
    return {
        name.removeprefix(prefix): tensor.float()
        for name, tensor in checkpoint.tensors.items()
        if (name.startswith(prefix) if prefix else not name.startswith(tuple(PREFIXES.values())))
    }


class MedzsadMini(RoutedDetector):
    """The embedded default detector: its networks, what they give, and its checkpoint.

    Args:
        image_size, slice_size: multiples of 16. They, the thresholds, ``photographs`` and ``neighbour_mm`` go
            with the choice of the network, and are described at :class:`RoutedDetector`.
        score_mix: the joint score is ``(1 - score_mix) * p_image + score_mix * max(smoothed map)``.
        smoothing: sigma of the map's Gaussian smoothing, in pixels of the map (half the input's side).
        flip: average each prediction with that of the left-right mirrored image, where the network is one
            for that (``mirrored``).
        network: the sizes of :class:`MiniNetwork`.
        colour: have a second network for images in colour: True for one of the same sizes, ``"lite0"`` for
            :class:`ColourNetwork`.
        ultrasound: have one more network over that encoder, for ultrasound that is known to be some.
        radiology: have one more over that encoder, trained on grey images: for ``other_scores``.
        other_scores: shares of the networks ``"colour"`` and ``"radiology"`` in the scores of grey images
            (:class:`~.opinions.Opinions`); None for the grey network's alone.
        encoder: digest of the encoder that :class:`ColourNetwork` was trained with; None for any.
        slice_unet: have a :class:`~.slices.SliceUNet` beside the network for slices, with this share in the
            mean of the two, in (0, 1]; 0 is without one.
        calibration: for ``"grey"``, ``"colour"`` and ``"ultrasound"`` images, for a volume's ``"slice"``, for
            what ``"radiology"`` says and for ``"mixed"`` scores,
            slope and offset (:func:`platt`) of ``"map"``, ``"probability"`` and ``"score"``, so that values
            mean the same everywhere; None leaves them as they are.
        normal_scores: the fields of :class:`~medzsad.detectors.normal_scores.NormalScores`, measured with
            the network for slices; None where they are not known.

    Raises:
        ValueError: if a size is not a positive multiple of 16, ``colour`` is unknown, the encoder in the
            package is another one, ``slice_unet`` is outside [0, 1] or without ``neighbour_mm``, or
            ``other_scores`` names what is not there or has impossible shares.
    """

    method: str = "mini"
    framing: str = "foreground"
    volume_rules: VolumeRules = MEASURED_RULES
    bounded_in_bf16: ClassVar[bool] = False  # scores move by up to 2e-3, most of it from the first stages

    def __init__(
        self,
        *,
        image_size: int = 192,
        slice_size: int | None = None,
        threshold: float | str = 0.5,
        slice_threshold: float | str | None = None,
        colour_threshold: float | str | None = None,
        score_mix: float = 0.5,
        smoothing: float = 1.0,
        flip: bool = True,
        network: dict[str, Any] | None = None,
        colour: bool | str = False,
        photographs: bool = False,
        ultrasound: bool = False,
        ultrasound_threshold: float | str | None = None,
        radiology: bool = False,
        other_scores: Mapping[str, float] | None = None,
        encoder: str | None = None,
        neighbour_mm: float | None = None,
        slice_unet: float = 0.0,
        calibration: Mapping[str, Mapping[str, tuple[float, float]]] | None = None,
        normal_scores: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        for side in (image_size, slice_size or image_size):
            if side <= 0 or side % 16:
                raise ValueError(f"image_size and slice_size must be positive multiples of 16, got {side}")
        if not 0 <= slice_unet <= 1:
            raise ValueError(f"slice_unet must lie in [0, 1], got {slice_unet}")
        if slice_unet and neighbour_mm is None:
            raise ValueError("slice_unet goes with a network for slices: give neighbour_mm")
        super().__init__(
            image_size=image_size,
            slice_size=slice_size,
            threshold=threshold,
            slice_threshold=slice_threshold,
            colour_threshold=colour_threshold,
            ultrasound_threshold=ultrasound_threshold,
            photographs=photographs,
            neighbour_mm=neighbour_mm,
        )
        self.score_mix = float(score_mix)
        self.smoothing = float(smoothing)
        self.flip = bool(flip)
        self.network_settings = dict(network or {})
        self.network = MiniNetwork(**self.network_settings).to(memory_format=torch.channels_last)
        self.colour, self.encoder_digest = colour, encoder
        if colour:
            second = self._build_colour_network()
            self.colour_network = second.to(memory_format=torch.channels_last)
        for kind, wanted in (("ultrasound", ultrasound), ("radiology", radiology)):
            if wanted:
                setattr(self, f"{kind}_network", self._over_the_same_encoder(kind))
        if other_scores:
            self.opinions = Opinions(self._opinion_networks(), other_scores)
        if neighbour_mm is not None:
            third = SliceNetwork(unet_share=float(slice_unet), **self.network_settings)
            self.slice_network = third.to(memory_format=torch.channels_last)
        if slice_unet:
            self.volume_rules = UNET_RULES
        self.calibration = {
            kind: {name: tuple(pair) for name, pair in pairs.items()}
            for kind, pairs in (calibration or {kind: AS_IT_IS for kind in KINDS}).items()
        }
        if any(set(AS_IT_IS) - set(pairs) for pairs in self.calibration.values()):
            raise ValueError(f"calibration must have {', '.join(AS_IT_IS)} of each kind")
        self.normal_scores = read_normal_scores(normal_scores)
        self.eval()

    def _build_colour_network(self) -> MiniNetwork | ColourNetwork:
        if self.colour is True:
            return MiniNetwork(**self.network_settings)
        if self.colour != "lite0":
            raise ValueError(f"colour must be true, false or 'lite0', got {self.colour!r}")
        network = ColourNetwork()
        if self.encoder_digest not in (None, network.encoder.digest):
            raise ValueError("its network for colours was trained with another EfficientNet-Lite0")
        self.encoder_digest = network.encoder.digest
        return network

    def _over_the_same_encoder(self, kind: str) -> ColourNetwork:
        if not isinstance(self.colour_network, ColourNetwork):
            raise ValueError(f"a network for {kind} goes with colour 'lite0'")
        return ColourNetwork(self.colour_network.encoder).to(memory_format=torch.channels_last)

    def _opinion_networks(self) -> dict[str, ColourNetwork]:
        """Return the networks whose scores may count for grey images, by kind."""
        named = {"colour": self.colour_network, "radiology": self.radiology_network}
        return {kind: network for kind, network in named.items() if isinstance(network, ColourNetwork)}

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that determine the numbers, JSON-serialisable."""
        return {
            **super().settings,
            "score_mix": self.score_mix,
            "smoothing": self.smoothing,
            "flip": self.flip,
            "colour": self.colour if self.colour_network is not None else False,
            **({"photographs": True} if self.photographs else {}),
            **({"ultrasound": True} if self.ultrasound_network is not None else {}),
            **({} if self.opinions is None else {"other_scores": self.opinions.shares}),
            "neighbour_mm": self.slice_neighbour_mm,
            **({"slice_unet": self.slice_unet} if self.slice_unet else {}),
            "calibration": self.calibration,
        }

    def at_size(self, side: int) -> Self:
        """Return the detector at another size; see the base class."""
        return self._at_size(side, 16)

    @property
    def slice_unet(self) -> float:
        """The share of a U-Net beside the network for slices; 0 without one."""
        return 0.0 if self.slice_network is None else self.slice_network.unet_share

    def _detect(
        self, network: MiniNetwork | ColourNetwork, inputs: Tensor, kind: str
    ) -> Prediction | SlicePrediction:
        flip = self.flip and network.mirrored
        if flip:
            inputs = torch.cat([inputs, inputs.flip(-1)])
        brain = None
        if isinstance(network, SliceNetwork):
            pixel, image, brain = network.marks(inputs)
        else:
            pixel, image = network(inputs)
        prediction = self._calibrated(pixel, image, kind, flip)
        if brain is not None:
            return SlicePrediction(*prediction, brain.float().sigmoid())
        if kind == "grey" and self.opinions is not None:
            return self._mixed(prediction, inputs, flip)
        return prediction

    def _calibrated(self, pixel: Tensor, image: Tensor, kind: str, flip: bool) -> Prediction:
        """Return what a network of a kind says, from its logits (B, 2, h, w) and (B, 2).

        With ``flip`` the second half of the batch is the mirrored first, and their mean counts.
        """
        maps, probability = pixel.float().softmax(1)[:, 1], image.float().softmax(1)[:, 1]
        if flip:
            batch = maps.shape[0] // 2  # len() would fix the size of a graph
            maps = (maps[:batch] + maps[batch:].flip(-1)) / 2
            probability = (probability[:batch] + probability[batch:]) / 2
        with torch.autocast(maps.device.type, enabled=False):
            maps = gaussian_smooth(maps, self.smoothing)
        score = (1 - self.score_mix) * probability + self.score_mix * maps.amax((1, 2))
        pairs = self.calibration.get(kind, AS_IT_IS)
        return Prediction(
            platt(maps, *pairs["map"]),
            platt(score, *pairs["score"]),
            platt(probability, *pairs["probability"]),
        )

    def _mixed(self, own: Prediction, inputs: Tensor, flip: bool) -> Prediction:
        """Return a prediction of grey images with the scores of all that have a say in them."""
        opinions = certain(self.opinions)
        others = [
            (kind, self._calibrated(pixel, image, kind, flip)) for kind, pixel, image in opinions(inputs)
        ]
        pairs = self.calibration.get(MIXED, AS_IT_IS)
        score = opinions.mean(own.image_score, [(kind, said.image_score) for kind, said in others])
        probability = opinions.mean(
            own.image_probability, [(kind, said.image_probability) for kind, said in others]
        )
        return own._replace(
            image_score=platt(score, *pairs["score"]),
            image_probability=platt(probability, *pairs["probability"]),
        )

    def to_checkpoint(self) -> Checkpoint:
        """Return the networks' weights in float16 (half the file, no measurable change) and the settings."""
        is_whole = self.kind == "grey" and self.only is None
        ultrasound = {"ultrasound": True, "ultrasound_threshold": self.ultrasound_threshold}
        tensors = learned(self.network)
        for part, prefix in PREFIXES.items():
            network = getattr(self, part)
            if network is not None:
                tensors |= {f"{prefix}{name}": tensor for name, tensor in learned(network).items()}
        return Checkpoint(
            method=self.method,
            tensors={name: tensor.half() for name, tensor in tensors.items()},
            settings={
                "image_size": self.flat_size,
                "slice_size": self.slice_size,
                "threshold": self.threshold if is_whole else self.image_threshold,
                "slice_threshold": self.slice_threshold,
                **({} if self.colour_threshold is None else {"colour_threshold": self.colour_threshold}),
                "score_mix": self.score_mix,
                "smoothing": self.smoothing,
                "flip": self.flip,
                "network": self.network_settings,
                "colour": self.colour if self.colour_network is not None else False,
                **({} if self.encoder_digest is None else {"encoder": self.encoder_digest}),
                **({"photographs": True} if self.photographs else {}),
                **({} if self.ultrasound_network is None else ultrasound),
                **({} if self.radiology_network is None else {"radiology": True}),
                **({} if self.opinions is None else {"other_scores": self.opinions.shares}),
                "neighbour_mm": self.slice_neighbour_mm,
                **({"slice_unet": self.slice_unet} if self.slice_unet else {}),
                "calibration": self.calibration,
                "normal_scores": [asdict(scores) for scores in self.normal_scores],
            },
        )

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, *, clip_weights: str | None = None) -> MedzsadMini:
        """Build the detector; ``clip_weights`` is ignored, for nothing of CLIP is used.

        Raises:
            ModelNotReady: if the checkpoint is another method's, or its tensors do not fit its settings.
        """
        settings = cls.own_settings(checkpoint)
        try:
            detector = cls(**settings)
            detector.network.load_state_dict(tensors_of(checkpoint, "network"))
            for part in PREFIXES:
                network = getattr(detector, part)
                if network is not None:
                    load_learned(network, tensors_of(checkpoint, part))
        except (AttributeError, TypeError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0]  # torch lists every key after it
            raise ModelNotReady(f"the checkpoint does not fit medzsad-mini: {reason}") from error
        return detector
