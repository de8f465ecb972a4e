"""CLIP as it is: the class token scores the image, the last layer's patch tokens give the map."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from torch import Tensor

from medzsad.detectors.base import Prediction
from medzsad.detectors.scoring import gaussian_smooth, upsample
from medzsad.detectors.zero_shot.base import TrainingFreeDetector
from medzsad.detectors.zero_shot.settings import PlainCLIPSettings, TrainingFreeSettings

if TYPE_CHECKING:
    from medzsad.detectors.clip.backbone import FrozenCLIP


class PlainCLIP(TrainingFreeDetector):
    """Training-free detector, the reference that every other CLIP method should beat.

    The image score is the softmax of cosine similarities over the temperature, as CLIP classifies (Radford et
    al., ICML 2021), with the state ensemble of WinCLIP. For the map every patch token of the last layer goes
    through the final layer norm and projection, which CLIP trained for the class token only; ``dense="vv"``
    takes AnomalyCLIP's V-V path instead. Arguments: see the base class.
    """

    method: str = "clip"
    settings_class: ClassVar[type[TrainingFreeSettings]] = PlainCLIPSettings
    config: PlainCLIPSettings

    def detect(self, inputs: Tensor, texts: Tensor | None = None) -> Prediction:
        """See the base class."""
        clip, config = self.clip, self.config
        grid = clip.grid(inputs)
        if config.dense == "vv":
            # The settings refuse it for any other.
            run = cast("FrozenCLIP", clip).run_blocks(
                clip.embed(inputs), layers=(clip.depth,), vv_start=config.vv_start, class_only=True
            )
            tokens = run.layers[clip.depth]
        else:
            run = clip.run_blocks(clip.embed(inputs))
            tokens = run.tokens
        patches = clip.project(tokens[:, -grid[0] * grid[1] :])  # without the class token
        probability = self.abnormal_probability(patches, texts).unflatten(1, grid)
        maps = gaussian_smooth(upsample(probability, tuple(inputs.shape[-2:])), config.smoothing_sigma)
        return self.prediction(maps, self.abnormal_probability(clip.class_feature(run.tokens), texts))
