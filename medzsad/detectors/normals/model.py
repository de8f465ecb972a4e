"""The detector that knows normal images: maps and scores from distances to their profile."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medzsad.detectors.base import AnomalyDetector, Prediction
from medzsad.detectors.checkpoint import Checkpoint
from medzsad.detectors.features.base import PatchFeatures, build_features
from medzsad.detectors.normals.profile import LayerProfile
from medzsad.detectors.scoring import gaussian_smooth, pool_map, upsample
from medzsad.errors import BadInput, ModelNotReady
from medzsad.scans.scan import Scan
from medzsad.storage.hashing import hash_settings, hash_tensors

SMOOTHING = 4.0  # sigma of the map at the input's resolution, as PatchCore and AnomalyDINO smooth it
TOP_PERCENT = 1.0  # of the highest patches, whose mean is the image's distance (AnomalyDINO)
EVIDENCE = math.log(100)  # of a distance of 1, which one normal patch of a hundred has: odds of 100 to 1
NEUTRAL = 0.5  # the distance that speaks neither for normal nor for abnormal
MOST_EVIDENCE = math.log(10)  # either way, so that a profile cannot overrule a detector that is certain
PARTS = ("mean", "basis", "coreset", "centre", "spread", "height_scale")


class NormalsDetector(AnomalyDetector):
    """Scores images by how far their patches are from those of normal ones.

    Args:
        features: the frozen backbone.
        layers: the profile of each of its layers.
        limits: the highest distances of normal images that were left out: of a pixel (one of a thousand is
            above it), and of an image. They become 0.5.
        record: what the profile was made from, see :mod:`medzsad.training.normals`.

    Attributes:
        digest: of all that its numbers depend on: 16 hexadecimal digits.
        framing: what the normals were shown as, see :attr:`AnomalyDetector.framing`.
    """

    method = "normals"
    bounded_in_bf16: ClassVar[bool] = False
    heights: Tensor | None = None
    gives_evidence: bool = False
    """Whether it takes part in a combination, see :meth:`as_evidence`."""

    def __init__(
        self,
        features: PatchFeatures,
        layers: Sequence[LayerProfile],
        *,
        limits: tuple[float, float] = (1.0, 1.0),
        record: Mapping[str, Any] | None = None,
        threshold: float | str = 0.5,
    ) -> None:
        super().__init__(
            image_size=features.image_size, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), threshold=threshold
        )
        self.features = features
        self.profile = nn.ModuleList(_Layer(layer) for layer in layers)
        self.limits = limits
        self.record = dict(record or {})
        self.framing = str(self.record.get("framing", "foreground"))
        self.uses_heights = any(layer.has_heights for layer in layers)
        numbers = [features.name, features.digest, self.image_size, *limits]
        self.digest = hash_tensors(self.profile.state_dict(), hash_settings(numbers).encode())[:16]

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that determine the numbers, JSON-serialisable."""
        rule = [EVIDENCE, NEUTRAL, MOST_EVIDENCE, list(self.features.telling)]
        evidence = {"evidence": rule} if self.gives_evidence else {}
        return super().settings | {"features": self.features.name, "normals": self.digest, **evidence}

    def check_scan(self, scan: Scan) -> None:
        """Raise BadInput for a scan of another modality than the normal ones."""
        known = self.record.get("modalities") or [str(scan.modality)]
        if not self.any_modality and str(scan.modality) not in known:
            raise BadInput(
                f"{scan.name} is {scan.modality}, but the normals of {self.name} are {', '.join(known)}; "
                "take normals of its kind, or set `any_modality`"
            )

    def check_graph(self) -> None:
        """Raise BadInput: distances to patches are no graph."""
        raise BadInput(f"{self.name}: a profile of normals has no graph; leave `backend` out")

    def at_heights(self, heights: Tensor) -> NormalsDetector:
        """Return the detector for slices at these relative heights (B,)."""
        other = self._copy()
        other.heights = heights
        return other

    def as_evidence(self) -> NormalsDetector:
        """Return the detector as a part of a combination, see :mod:`.combination`.

        Its map says, as a probability, how many times likelier a pixel's distance is where something is
        abnormal: odds of 1 at :data:`NEUTRAL`, and a hundred times as many for each unit of distance to the
        nearest normal patch, from 1:10 to 10:1, by those layers of the features that stand for it
        (:attr:`PatchFeatures.telling`).
        """
        other = self._copy()
        other.gives_evidence = True
        return other

    def distances(self, images: Tensor) -> Tensor:
        """Return distances from normality, float32 (B, S, S), of images (B, 3, S, S) in [0, 1]."""
        layers = [cast(_Layer, layer).profile for layer in self.profile]
        features = self.features(images)
        if self.gives_evidence and self.features.telling:
            layers = [layers[index] for index in self.features.telling]
            features = [features[index] for index in self.features.telling]
        return distances(layers, features, self.image_size, self.heights, nearest_only=self.gives_evidence)

    def detect(self, inputs: Tensor) -> Prediction:
        with torch.autocast(inputs.device.type, enabled=False):
            if self.gives_evidence:
                evidence = EVIDENCE * (self.distances(inputs.float()) - NEUTRAL)
                odds = torch.sigmoid(evidence.clamp(-MOST_EVIDENCE, MOST_EVIDENCE))
                return Prediction(odds, *[image_distance(odds)] * 2)
            distances = self.distances(inputs.float())
            score = _value(image_distance(distances), self.limits[1])
            return Prediction(_value(distances, self.limits[0]), score, score)

    def to_checkpoint(self) -> Checkpoint:
        """Return the profile and its record; the backbone is named, not stored."""
        tensors = {
            f"layers.{index}.{part}": getattr(layer.profile, part)
            for index, layer in enumerate(self.profile)
            for part in PARTS
        }
        settings = {
            "features": self.features.name,
            "features_digest": self.features.digest,
            "image_size": self.image_size,
            "limits": list(self.limits),
            "threshold": self.threshold,
        }
        return Checkpoint(self.method, tensors, settings, self.record)

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: Checkpoint,
        *,
        clip_weights: str | None = None,
        features: PatchFeatures | None = None,
    ) -> Self:
        """Build the detector.

        Args:
            checkpoint: what :meth:`to_checkpoint` returned.
            clip_weights: the file of the features' weights; None for those in the package.
            features: the backbone, which :func:`medzsad.zoo.loading.load_features` finds by its name; None
                builds it from ``clip_weights``.

        Raises:
            ModelNotReady: if the checkpoint is another method's, or the backbone's weights are missing or not
                those that the profile was made with.
        """
        settings = cls.own_settings(checkpoint)
        name, size = str(settings["features"]), int(settings["image_size"])
        if features is None:
            features = build_features(name, image_size=size, weights=clip_weights)
        expected = settings.get("features_digest", features.digest)
        if features.digest != expected:
            raise ModelNotReady(
                f"made with other weights of {name} (digest {str(expected)[:12]}...) than those at hand "
                f"({features.digest[:12]}...); give the file of those weights as `clip_weights`, or make the "
                "profile again"
            )
        layers = stored_layers(checkpoint)
        _check_fit(layers, features)
        pixel, image = (float(limit) for limit in settings["limits"])
        return cls(
            features,
            layers,
            limits=(pixel, image),
            record=checkpoint.training,
            threshold=settings.get("threshold", 0.5),
        )


def distances(
    layers: Sequence[LayerProfile],
    features: Sequence[Tensor],
    side: int,
    heights: Tensor | None = None,
    *,
    nearest_only: bool = False,
) -> Tensor:
    """Return the mean over layers of patches' distances, smoothed: float32 (B, side, side).

    Args:
        layers: their profiles.
        features: float32 (B, C, h, w) of each.
        side: of the input in pixels.
        heights: float32 (B,), relative heights along the stack; None for images.
        nearest_only: leave the residual out of each.
    """
    maps = [
        upsample(layer.score(tokens, heights, nearest_only=nearest_only), (side, side))
        for layer, tokens in zip(layers, features, strict=True)
    ]
    return gaussian_smooth(torch.stack(maps).mean(0), SMOOTHING)


def image_distance(maps: Tensor) -> Tensor:
    """Return the distance (B,) of images from their maps (B, S, S): the mean of the highest pixels."""
    return pool_map(maps, "top", TOP_PERCENT)


def stored_layers(checkpoint: Checkpoint) -> list[LayerProfile]:
    """Return the layers' profiles that a checkpoint holds.

    Raises:
        ValueError: if tensors are missing, too many or of shapes that do not fit each other, or what it says
            of itself is none of what :mod:`medzsad.training.normals` writes.
    """
    tensors, limits = checkpoint.tensors, checkpoint.settings["limits"]
    names = [f"layers.{index}.{part}" for index in range(len(tensors) // len(PARTS)) for part in PARTS]
    if not names or set(names) != set(tensors):
        raise ValueError(f"its tensors are not {', '.join(PARTS)} of one layer or more")
    if not all(tensor.is_floating_point() for tensor in tensors.values()):
        raise ValueError("its tensors are not all of floating-point numbers")
    of_numbers = isinstance(limits, list) and len(limits) == 2
    if not of_numbers or not all(isinstance(x, (int, float)) and 0 < x < math.inf for x in limits):
        raise ValueError(f"limits {limits} are not two positive numbers")
    modalities = checkpoint.training.get("modalities") or []
    if not isinstance(modalities, list) or not all(isinstance(name, str) for name in modalities):
        raise ValueError("its modalities are no list of names")
    layers = []
    for number in range(len(tensors) // len(PARTS)):
        parts = {part: tensors[f"layers.{number}.{part}"].float() for part in PARTS}
        channels = parts["mean"].numel()
        expected: dict[str, list[tuple[int, ...]]] = {
            "mean": [(channels,)],
            "basis": [(channels, parts["basis"].shape[-1] if parts["basis"].ndim else 0)],
            "coreset": [
                (len(parts["coreset"]) if parts["coreset"].ndim else 0, channels + extra) for extra in (0, 1)
            ],
            "centre": [(2,)],
            "spread": [(2,)],
            "height_scale": [()],
        }
        for part, shapes in expected.items():
            if tuple(parts[part].shape) not in shapes or not (parts[part].numel() or part == "basis"):
                raise ValueError(f"{part} of layer {number} has the shape {tuple(parts[part].shape)}")
        if not bool((parts["spread"] > 0).all()):
            raise ValueError(f"the spread of layer {number} is not positive")
        layers.append(LayerProfile(**parts))
    return layers


def _check_fit(layers: Sequence[LayerProfile], features: PatchFeatures) -> None:
    """Raise ValueError where a profile is not of these features, or its tensors do not fit each other."""
    side = features.image_size
    with torch.inference_mode():
        channels = [tokens.shape[1] for tokens in features(torch.zeros(1, 3, side, side))]
    if [len(layer.mean) for layer in layers] != channels:
        raise ValueError(f"it was made of other features than {features.name}")


class _Layer(nn.Module):
    """Holds a layer's tensors, so that they move with the detector."""

    def __init__(self, layer: LayerProfile) -> None:
        super().__init__()
        for name in PARTS:
            self.register_buffer(name, getattr(layer, name).contiguous())

    @property
    def profile(self) -> LayerProfile:
        return LayerProfile(**{name: getattr(self, name) for name in PARTS})


def _value(distance: Tensor, limit: float) -> Tensor:
    """Return a distance as a value in [0, 1]: 0.5 at the limit, 0.05 or so for a typical normal, 1 far away.

    It rises slowly enough that the most conspicuous of several anomalies can still be told.
    """
    ratio = F.softplus(2 * distance) / F.softplus(torch.tensor(2 * limit))
    return ratio.pow(3) / (1 + ratio.pow(3))
