"""AdaCLIP's text features: the states of an object, with learned tokens in the place of their first words."""

from __future__ import annotations

import torch
from torch import Tensor

from medzsad.detectors.adaclip.prompts import AdaCLIPAdapter
from medzsad.detectors.clip.backbone import FrozenCLIP
from medzsad.detectors.clip.shared_prefix import encode_after_first_block
from medzsad.detectors.clip.state_prompts import StateTokens, pool_states


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
