"""What AdaCLIP learns (Cao et al., ECCV 2024): static and dynamic prompts of both towers, and projections.

Its text features are those of the states of an object, with learned tokens in the place of their first words.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medzsad.detectors.adaclip.settings import AdaCLIPSettings
from medzsad.detectors.clip.backbone import BlockHook, FrozenCLIP
from medzsad.detectors.clip.shared_prefix import encode_after_first_block
from medzsad.detectors.clip.state_prompts import StateTokens, pool_states
from medzsad.detectors.clip.weights import read_tensors
from medzsad.detectors.tensor_names import part_of
from medzsad.errors import ModelNotReady, certain

INIT_STD = 0.02
PUBLISHED_PREFIX = "clip_model."


class LinearHeads(nn.Module):
    """Independent linear layers of the same sizes, kept as ``head``."""

    def __init__(self, width: int, out_width: int, count: int) -> None:
        super().__init__()
        self.head = nn.ModuleList(nn.Linear(width, out_width) for _ in range(count))

    def forward(self, x: Tensor) -> Tensor:
        """All layers on the same input: (B, width) to (B, count, out_width)."""
        return torch.stack([layer(x) for layer in self.head], 1)


class StaticPrompts(nn.Module):
    """Learned prompt tokens, the same for all images: ``depth`` tensors (length, width)."""

    def __init__(self, depth: int, length: int, width: int) -> None:
        super().__init__()
        self.static_prompts = nn.ParameterList(INIT_STD * torch.randn(length, width) for _ in range(depth))


class AdaCLIPAdapter(nn.Module):
    """All learned parts, named as in the published checkpoints, less ``clip_model.``.

    A block's prompts are its static ones plus the dynamic ones, which are the same at every depth. What
    the settings leave out does not exist. As in the published code the text tower is not prompted before its
    first block, so ``text_prompter.static_prompts.0`` is never used.

    Args:
        config: the settings, resolved.
        width: width of the image tower's tokens.
        text_width: width of the text tower's tokens.
        embed_dim: dimension D of the space that images and texts share.
    """

    def __init__(self, config: AdaCLIPSettings, *, width: int, text_width: int, embed_dim: int) -> None:
        super().__init__()
        depth, length = config.prompt_depth, config.prompt_length
        self.depth, self.length = depth, length
        self.widths = {"visual": width} if config.prompts_image else {}
        if config.prompts_text:
            self.widths["text"] = text_width
        for name, tokens in self.widths.items():
            if "S" in config.prompt_type:
                setattr(self, f"{name}_prompter", StaticPrompts(depth, length, tokens))
            if "D" in config.prompt_type:
                setattr(self, f"dynamic_{name}_prompt_generator", LinearHeads(embed_dim, tokens, length))
        self.patch_token_layer = LinearHeads(width, embed_dim, len(certain(config.output_layers)))
        self.cls_token_layer = LinearHeads(embed_dim, embed_dim, 1)

    def prompts(self, branch: str, frozen: Tensor | None) -> list[Tensor]:
        """Return the prompts of each depth.

        Args:
            branch: ``"visual"`` or ``"text"``.
            frozen: float32 (B, D), plain CLIP's image features; needed for dynamic prompts.

        Returns:
            ``depth`` tensors (B, length, width), or (1, length, width) if only static; none if the branch is
            not prompted.
        """
        if branch not in self.widths:
            return []
        static = getattr(self, f"{branch}_prompter", None)
        generator = getattr(self, f"dynamic_{branch}_prompt_generator", None)
        with torch.autocast(next(self.cls_token_layer.parameters()).device.type, enabled=False):
            if generator is None:
                return [] if static is None else [p[None] for p in static.static_prompts]
            dynamic = generator(certain(frozen).float())
            if static is None:
                return [dynamic] * self.depth
            return [p + dynamic for p in static.static_prompts]

    def image_hook(self, frozen: Tensor | None) -> BlockHook:
        """Append the prompts before the first block and replace them before the next ``depth - 1``."""
        prompts = self.prompts("visual", frozen)

        def hook(block: int, tokens: Tensor) -> Tensor:
            if block >= len(prompts):
                return tokens
            kept = tokens if block == 0 else tokens[:, : -self.length]
            return torch.cat([kept, prompts[block].to(tokens.dtype).expand(tokens.shape[0], -1, -1)], 1)

        return hook

    def text_hook(self, frozen: Tensor | None, texts: int) -> BlockHook:
        """Overwrite tokens 1 to ``length`` before the second block and the next ``depth - 2``.

        Args:
            frozen: see :meth:`prompts`.
            texts: number P of texts; the hook's tokens are (B * P, T, width), or (P, T, width) if all prompts
                are static.
        """
        prompts = self.prompts("text", frozen)

        def hook(block: int, tokens: Tensor) -> Tensor:
            if not 1 <= block < len(prompts):
                return tokens
            inserted = prompts[block].to(tokens.dtype).repeat_interleave(texts, 0)
            return torch.cat([tokens[:, :1], inserted, tokens[:, 1 + self.length :]], 1)

        return hook

    def project_image(self, feature: Tensor) -> Tensor:
        """CLIP's image features (B, D) to AdaCLIP's: float32 (B, D), L2-normalised."""
        with torch.autocast(feature.device.type, enabled=False):
            return F.normalize(self.cls_token_layer.head[0](feature.float()), dim=-1)

    def project_patches(self, layers: list[Tensor]) -> list[Tensor]:
        """Patch tokens (B, P, width) of each output layer to features: float32 (B, P, D), L2-normalised."""
        # In full precision, as the logits are a hundred times the cosines.
        with torch.autocast(layers[0].device.type, enabled=False):
            return [
                F.normalize(layer(tokens.float()), dim=-1)
                for layer, tokens in zip(self.patch_token_layer.head, layers, strict=True)
            ]

    @classmethod
    def build(
        cls, config: AdaCLIPSettings, clip: FrozenCLIP, tensors: Mapping[str, Tensor] | None = None
    ) -> AdaCLIPAdapter:
        """Return an adapter for ``clip``: untrained, or with ``tensors``, of which surplus ones are ignored.

        Raises:
            ModelNotReady: if tensors are missing or of another shape, or the text tower's width is unknown.
        """
        static = None if tensors is None else tensors.get("text_prompter.static_prompts.0")
        if clip.text is not None:
            text_width = clip.text.token_embedding.weight.shape[1]
        elif static is None and config.prompts_text:
            raise ModelNotReady(f"{clip.name}: untrained or dynamic text prompts need the text tower")
        else:
            text_width = clip.embed_dim if static is None else static.shape[-1]
        adapter = cls(config, width=clip.width, text_width=text_width, embed_dim=clip.embed_dim)
        if tensors is None:
            return adapter
        for name, parameter in adapter.state_dict().items():
            if name not in tensors:
                raise ModelNotReady(f"not AdaCLIP weights of these settings: {name} is missing")
            if tensors[name].shape != parameter.shape:
                raise ModelNotReady(
                    f"AdaCLIP weights that do not fit {clip.name}: {name} is {tuple(tensors[name].shape)}, "
                    f"needed is {tuple(parameter.shape)}"
                )
        adapter.load_state_dict({name: tensors[name].float() for name in adapter.state_dict()})
        return adapter


def read_published(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a checkpoint of the published implementation.

    Args:
        path: the ``.pth`` file, a flat dictionary of tensors ``clip_model.<part>...``, or
            its safetensors copy.

    Returns:
        The tensors, without the prefix, and the settings that their names and shapes tell. Purely dynamic
        prompts do not tell depth and branch.

    Raises:
        ModelNotReady: if the file is missing, damaged, unsafe, or holds something else.
    """
    tensors = part_of(read_tensors(path)[0], PUBLISHED_PREFIX)
    if not any(name.startswith("patch_token_layer.head.") for name in tensors):
        raise ModelNotReady(f"{path}: not an AdaCLIP checkpoint (no {PUBLISHED_PREFIX}patch_token_layer)")
    static = {
        key: [n for n in tensors if n.startswith(f"{branch}_prompter.static_prompts.")]
        for key, branch in (("V", "visual"), ("L", "text"))
    }
    generated = [
        n for n in tensors if n.startswith("dynamic_visual_prompt_generator.") and n.endswith("weight")
    ]
    names = static["V"] or static["L"]
    sizes: dict[str, Any] = {"prompt_type": ("S" if names else "") + ("D" if generated else "")}
    if names:
        sizes["prompt_branch"] = "".join(key for key in "VL" if static[key])
        sizes["prompt_depth"] = len(names)
        sizes["prompt_length"] = len(tensors[names[0]])
    elif generated:
        sizes["prompt_length"] = len(generated)
    else:
        raise ModelNotReady(f"{path}: an AdaCLIP checkpoint without prompts")
    return tensors, sizes


def prompted_texts(
    clip: FrozenCLIP, adapter: AdaCLIPAdapter, tokens: StateTokens, frozen: Tensor | None, *, class_name: str
) -> Tensor:
    """Text features of "normal" and "abnormal".

    Args:
        clip: with its text tower.
        adapter: whose text prompts are put in, if it has any.
        tokens: of the class.
        frozen: float32 (B, D), plain CLIP's features of the images, for dynamic prompts; None without.
        class_name: what ``tokens`` speak of.

    Returns:
        float32 (B, 2, D), or (1, 2, D) without dynamic prompts, L2-normalised; row 0 normal, row 1 abnormal.
    """
    # shape, as len() would fix the batch size of a graph.
    texts, images = len(tokens.ids), 1 if frozen is None else frozen.shape[0]
    # Prompted texts start alike from the second block on. A graph to export cannot depend on where they end.
    if "text" in adapter.widths and clip.causal_text and not torch.compiler.is_compiling():
        features = encode_after_first_block(
            clip,
            _after_first_block(clip, tokens, class_name),
            tokens.ends,
            start=1 + adapter.length,
            images=images,
            before_block=adapter.text_hook(frozen, 1),
        )
    else:
        features = clip.encode_text(
            clip.embed_text(tokens.ids).repeat(images, 1, 1),
            tokens.ends.repeat(images),
            before_block=adapter.text_hook(frozen, texts),
        ).unflatten(0, (images, texts))
    return pool_states(features, tokens.normal)


def _after_first_block(clip: FrozenCLIP, tokens: StateTokens, class_name: str) -> Tensor:
    """Return the texts (P, T, text width) out of the text tower's first block, which no image changes."""
    weight = clip.text_tower.token_embedding.weight
    key = ("adaclip", class_name, tokens.ids.shape[1], weight.device, weight.dtype, weight.data_ptr())
    return clip.once(key, lambda: clip.run_text_blocks(clip.embed_text(tokens.ids), last=1))
