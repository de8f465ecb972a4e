"""A detector together with a profile of normals: the odds of both are multiplied, pixel by pixel.

A detector's map is taken for probabilities. What a profile says beside it is how many times likelier the
distance of a pixel's patch is where something is abnormal (:meth:`.model.NormalsDetector.as_evidence`). By
Bayes' rule their odds are multiplied, as if both erred independently. So what the detector marks and the
normals have, too, is marked no longer, and what is unusual counts where the detector is in doubt. Of volumes
only slices' scores are joined (:meth:`medzsad.inference.slicewise.SliceWiseOutput.joined`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from medzsad.detectors.base import AnomalyDetector, Prediction
from medzsad.detectors.checkpoint import Checkpoint
from medzsad.detectors.normals.model import NormalsDetector
from medzsad.errors import ModelNotReady
from medzsad.scans.scan import Modality, Scan

TOP_PART = 0.02  # of an image's pixels: the mean evidence of the highest counts as much as the score
LEAST = 1e-6  # probability; what is closer to 0 or 1 is of rounding


class Combined(AnomalyDetector):
    """A detector and a profile of normals.

    Scans go through each of them by itself, for each has its own way of showing slices.

    Args:
        detector: decides what is said of the whole, and its region of interest, rules and threshold.
        profile: of normals.
    """

    method = "combined"

    def __init__(self, detector: AnomalyDetector, profile: AnomalyDetector) -> None:
        super().__init__(
            image_size=max(detector.image_size, profile.image_size), threshold=detector.threshold
        )
        self.detector = detector
        self.profile = profile.as_evidence() if isinstance(profile, NormalsDetector) else profile
        self.precision = detector.precision
        self.name = f"{detector.name} + {profile.name}"
        self.seen, self.seen_classes = detector.seen, detector.seen_classes
        self.framing = detector.framing
        self.tells_colours = detector.tells_colours
        self.uses_organ = detector.uses_organ
        self.volume_rules = detector.volume_rules

    @property
    def parts(self) -> tuple[AnomalyDetector, ...]:
        """The detector and the profile."""
        return (self.detector, self.profile)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of both."""
        return super().settings | {"parts": [{"model": p.name, **p.settings} for p in self.parts]}

    @property
    def marks_brain(self) -> bool:
        """Whether the detector says where the brain is."""
        return self.detector.marks_brain

    def check_scan(self, scan: Scan) -> None:
        for part in self.parts:
            part.check_scan(scan)

    def for_volume(self, *, colour: bool = False) -> Combined:
        """Return the combination of what both are for a volume."""
        return Combined(*(part.for_volume(colour=colour) for part in self.parts))

    def for_modality(self, modality: Modality) -> Combined:
        """Return the combination of what both are for a modality."""
        return Combined(*(part.for_modality(modality) for part in self.parts))

    def for_images(self, images: Tensor) -> Combined:
        """Return the combination of what both are for images that look like these."""
        return Combined(*(part.for_images(images) for part in self.parts))

    def for_classes(self, names: Iterable[str], *, organ: str | None = None) -> dict[str, AnomalyDetector]:
        told = self.detector.for_classes(names, organ=organ)
        return {name: Combined(detector, self.profile) for name, detector in told.items()}

    @property
    def class_name(self) -> str | None:
        """What the detector's texts say that images show."""
        return self.detector.class_name

    @torch.inference_mode()
    def predict_at_own_size(self, images: Tensor) -> Prediction:
        first, second = (part(images) for part in self.parts)
        inside = images.to(self.device).amax(1) > 0
        maps = joined_maps(first.anomaly_map, second.anomaly_map.to(self.device))
        highest = [highest_evidence(one, within) for one, within in zip(maps, inside, strict=True)]
        scores = [
            torch.stack([joined_score(own, top) for own, top in zip(owns, highest, strict=True)])
            for owns in (first.image_score, first.image_probability)
        ]
        return Prediction(maps, *scores)

    def detect(self, inputs: Tensor) -> Prediction:
        raise NotImplementedError("each part has its own way of preparing images")

    def check_graph(self) -> None:
        for part in self.parts:
            part.check_graph()

    def to_checkpoint(self) -> Checkpoint:
        raise ModelNotReady("a combination is not stored; store its parts")

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, *, clip_weights: str | None = None) -> Combined:
        raise ModelNotReady("a combination is not stored; store its parts")


def log_odds(probabilities: Tensor) -> Tensor:
    """Return ``log(p / (1 - p))``, finite."""
    return torch.logit(probabilities.float(), LEAST)


def joined_maps(first: Tensor, second: Tensor) -> Tensor:
    """Return the probabilities that have the product of the odds of both."""
    return torch.sigmoid(log_odds(first) + log_odds(second))


def highest_evidence(maps: Tensor, inside: Tensor) -> Tensor:
    """Return the mean log odds () of the highest :data:`TOP_PART` of a map's pixels.

    Args:
        maps: float32, any shape, in [0, 1].
        inside: bool, of the same shape: pixels that count; where there is none, all do.
    """
    values = maps[inside] if bool(inside.any()) else maps.flatten()
    count = max(1, round(TOP_PART * len(values)))
    return log_odds(values.topk(count).values).mean()


def joined_score(score: Tensor, highest: Tensor) -> Tensor:
    """Return the probability whose log odds are the mean of those of a score and of the highest evidence."""
    return torch.sigmoid((log_odds(score) + highest) / 2)
