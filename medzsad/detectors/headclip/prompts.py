"""What HeadCLIP learns: AnomalyCLIP's object-agnostic prompts (Zhou et al., ICLR 2024), and head weights."""

from __future__ import annotations

import os
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medzsad.detectors.clip.backbone import FrozenCLIP
from medzsad.detectors.clip.weights import read_tensors
from medzsad.detectors.tensor_names import part_of
from medzsad.errors import ModelNotReady

INIT_STD = 0.02


class PromptLearner(nn.Module):
    """``[V1]..[V12] object.`` and ``[W1]..[W12] damaged object.``, with tokens learned for deeper blocks.

    Parameter names are those of the published checkpoints.

    Args:
        width: width of the text tower's tokens.
        context_length: learned tokens at the start of each prompt.
        deep_length: learned tokens per deep block; 0 for none.
        deep_depth: number of deep blocks.
        deep_start: 0-based index of the first block whose input they overwrite.
        deep_position: first token position that they overwrite.
        phrases: the fixed ends of the normal and of the abnormal prompt.

    Attributes:
        ctx_pos: (1, 1, context_length, width), the normal prompt's tokens ("positive" in the original).
        ctx_neg: the abnormal prompt's.
        compound_prompts_text: ``deep_depth`` tensors (deep_length, width).
    """

    def __init__(
        self,
        width: int,
        *,
        context_length: int = 12,
        deep_length: int = 4,
        deep_depth: int = 8,
        deep_start: int = 1,
        deep_position: int = 1,
        phrases: tuple[str, str] = ("object.", "damaged object."),
    ) -> None:
        super().__init__()
        self.context_length = context_length
        self.deep_start = deep_start
        self.deep_position = deep_position
        self.phrases = phrases
        depth = deep_depth if deep_length else 0
        self.ctx_pos = nn.Parameter(INIT_STD * torch.randn(1, 1, context_length, width))
        self.ctx_neg = nn.Parameter(INIT_STD * torch.randn(1, 1, context_length, width))
        self.compound_prompts_text = nn.ParameterList(
            INIT_STD * torch.randn(deep_length, width) for _ in range(depth)
        )

    @property
    def sizes(self) -> dict[str, int]:
        """The sizes, under the names that HeadCLIP's settings have for them."""
        deep = self.compound_prompts_text
        return {
            "prompt_length": self.context_length,
            "deep_length": len(deep[0]) if len(deep) else 0,
            "deep_depth": len(deep),
            "deep_start": self.deep_start,
            "deep_position": self.deep_position,
        }

    def texts(self) -> list[str]:
        """Both prompts, with an X where a learned token goes."""
        return [" ".join(["X"] * self.context_length + [phrase]) for phrase in self.phrases]

    def forward(self, clip: FrozenCLIP) -> Tensor:
        """Text features.

        Args:
            clip: a CLIP with its text tower.

        Returns:
            (2, D), L2-normalised; row 0 normal, row 1 abnormal.

        Raises:
            ModelNotReady: if there is no text tower, or the prompts do not fit it.
        """
        self.check_fit(clip)
        ids = clip.tokenize(self.texts())
        if (ids[:, -1] != 0).any():  # cut off at the end
            raise ModelNotReady(f"{self.context_length} prompt tokens do not fit {clip.name}'s text tower")
        fixed = clip.embed_text(ids)
        learned = torch.cat([self.ctx_pos[0], self.ctx_neg[0]]).to(fixed.dtype)
        # Position 0 is the start-of-text token.
        embeddings = torch.cat([fixed[:, :1], learned, fixed[:, 1 + self.context_length :]], 1)
        features = clip.encode_text(embeddings, clip.text_ends(ids), before_block=self.overwrite)
        return F.normalize(features.float(), dim=-1)

    def overwrite(self, block: int, tokens: Tensor) -> Tensor:
        """Block hook: puts the deep tokens of ``block`` in place of those at ``deep_position`` and after."""
        index = block - self.deep_start
        if not 0 <= index < len(self.compound_prompts_text):
            return tokens
        deep = self.compound_prompts_text[index].to(tokens.dtype)
        end = self.deep_position + len(deep)
        repeated = deep.expand(len(tokens), -1, -1)
        return torch.cat([tokens[:, : self.deep_position], repeated, tokens[:, end:]], 1)

    def check_fit(self, clip: FrozenCLIP) -> None:
        """Raise ModelNotReady unless the prompts fit the text tower's width and depth."""
        tower = clip.text_tower
        width, depth = tower.token_embedding.weight.shape[1], len(tower.transformer.resblocks)
        if self.ctx_pos.shape[-1] != width:
            raise ModelNotReady(
                f"prompts of width {self.ctx_pos.shape[-1]} do not fit {clip.name}, width {width}"
            )
        deepest = self.deep_start + len(self.compound_prompts_text)
        if len(self.compound_prompts_text) and deepest > depth:
            raise ModelNotReady(f"deep prompts reach block {deepest} of {depth} in {clip.name}'s text tower")

    @classmethod
    def from_tensors(
        cls,
        tensors: Mapping[str, Tensor],
        *,
        origin: str = "the checkpoint",
        deep_start: int = 1,
        deep_position: int = 1,
        phrases: tuple[str, str] = ("object.", "damaged object."),
    ) -> PromptLearner:
        """Build prompts of the sizes that ``tensors`` have; other names in it are ignored.

        Raises:
            ModelNotReady: if tensors are missing or their shapes contradict one another.
        """
        deep_names = [name for name in tensors if name.startswith("compound_prompts_text.")]
        wanted = [f"compound_prompts_text.{i}" for i in range(len(deep_names))]
        deep = [tensors[name] for name in wanted if name in tensors]
        pos, neg = tensors.get("ctx_pos"), tensors.get("ctx_neg")
        if pos is None or neg is None or len(deep) < len(wanted):
            raise ModelNotReady(
                f"{origin}: holds no complete prompts (ctx_pos, ctx_neg, compound_prompts_text.N)"
            )
        fits = pos.ndim == 4 and pos.shape[:2] == (1, 1) and neg.shape == pos.shape
        if not fits or any(d.ndim != 2 or d.shape != (deep[0].shape[0], pos.shape[3]) for d in deep):
            raise ModelNotReady(f"{origin}: the prompts have shapes that do not go together")
        learner = cls(
            pos.shape[3],
            context_length=pos.shape[2],
            deep_length=deep[0].shape[0] if deep else 0,
            deep_depth=len(deep),
            deep_start=deep_start,
            deep_position=deep_position,
            phrases=phrases,
        )
        learner.load_state_dict({name: tensors[name].float() for name in learner.state_dict()})
        return learner


def load_anomalyclip_prompts(path: str | os.PathLike[str]) -> PromptLearner:
    """Read the prompts of a published AnomalyCLIP checkpoint, ``{"prompt_learner": state_dict}``, or of its
    safetensors copy in the model cache.

    Its ``compound_prompt_projections`` are never used by the published code either, and are ignored.

    Raises:
        ModelNotReady: if the file is missing, damaged, unsafe, or holds something else.
    """
    tensors = part_of(read_tensors(path)[0], "prompt_learner.")
    if not tensors:
        raise ModelNotReady(f"{path}: not an AnomalyCLIP checkpoint (no entry 'prompt_learner')")
    return PromptLearner.from_tensors(tensors, origin=str(path))


class HeadWeights(nn.Module):
    """One learnable scalar per layer and head, for the V-V ("patch") and the ordinary ("image") path.

    Args:
        layers: layers (from 1) with weights.
        heads: heads per layer.
        vv_start: first layer of the V-V path; before it there is no patch path to weight.
        paths, parametrisation: see :class:`~medzsad.detectors.headclip.settings.HeadCLIPSettings`. Whatever
            they are, all weights start at 1.
    """

    def __init__(
        self,
        layers: tuple[int, ...],
        heads: int,
        *,
        vv_start: int,
        paths: str = "patch+image",
        parametrisation: str = "raw",
    ) -> None:
        super().__init__()
        self.heads = heads
        self.parametrisation = parametrisation
        chosen = paths.split("+")
        self.layers = {
            "patch": tuple(layer for layer in layers if layer >= vv_start) if "patch" in chosen else (),
            "image": tuple(layers) if "image" in chosen else (),
        }
        start = 1.0 if parametrisation == "raw" else 0.0
        for path, path_layers in self.layers.items():
            values = nn.Parameter(torch.full((len(path_layers), heads), start)) if path_layers else None
            self.register_parameter(path, values)

    def scales(self, path: str) -> dict[int, Tensor]:
        """Layer to weights (heads,), for ``"patch"`` or ``"image"``."""
        values = getattr(self, path)
        if values is None:
            return {}
        if self.parametrisation == "softmax":
            values = self.heads * values.softmax(-1)
        elif self.parametrisation == "sigmoid":
            values = 2 * values.sigmoid()
        return dict(zip(self.layers[path], values.unbind(0), strict=True))
