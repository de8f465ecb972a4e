"""AnomalyCLIP (Zhou et al., ICLR 2024): object-agnostic learned prompts and a V-V attention path."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NoReturn, Self

from torch import Tensor, nn

from medzsad.detectors.checkpoint import Checkpoint
from medzsad.detectors.clip.backbone import FrozenCLIP
from medzsad.detectors.headclip.model import HeadCLIP
from medzsad.detectors.headclip.prompts import PromptLearner
from medzsad.detectors.headclip.settings import HeadCLIPSettings
from medzsad.errors import ModelNotReady


class AnomalyCLIP(HeadCLIP):
    """HeadCLIP with all head weights at 1 and joint weight 0, which is AnomalyCLIP exactly.

    The image score is the image-level probability alone. As in the published code the class token skips the
    final layer norm. Args, attributes and errors are :class:`~medzsad.detectors.headclip.model.HeadCLIP`'s;
    ``config.joint_weight`` is taken as 0 whatever it says.

    Raises:
        ModelNotReady: also on a checkpoint whose head weights are not 1.
    """

    method: str = "anomalyclip"

    def __init__(
        self,
        clip: FrozenCLIP,
        config: HeadCLIPSettings | None = None,
        *,
        prompts: PromptLearner | None = None,
        text_features: Tensor | None = None,
        threshold: float | str = 0.5,
    ) -> None:
        config = replace(config or HeadCLIPSettings(), joint_weight=0.0)
        super().__init__(clip, config, prompts=prompts, text_features=text_features, threshold=threshold)
        self.head_weights.requires_grad_(False)

    @classmethod
    def from_checkpoint(cls, *args: Any, **kwargs: Any) -> Self:
        detector = super().from_checkpoint(*args, **kwargs)
        for path in ("patch", "image"):
            if any(bool((scale != 1).any()) for scale in detector.head_weights.scales(path).values()):
                raise ModelNotReady("the checkpoint has head weights other than 1: it is HeadCLIP's")
        return detector

    @classmethod
    def _from_published(cls, *args: Any) -> NoReturn:
        raise ModelNotReady("the file has head weights: it is HeadCLIP's; use method headclip")

    def trainable_parameters(self) -> list[nn.Parameter]:
        """Return what training changes: the prompts."""
        return [] if self.prompts is None else list(self.prompts.parameters())

    @classmethod
    def picture(cls, checkpoint: Checkpoint) -> None:
        """Return None: all head weights are 1."""

    def _tower_settings(self) -> dict[str, Any]:
        # Multiplying by 1 would pass over all tokens of every layer twice.
        return {**super()._tower_settings(), "head_scales": None, "vv_head_scales": None}
