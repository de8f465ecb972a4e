"""Texts that start alike, encoded with their common start computed once and nothing after their ends.

AdaCLIP puts learned tokens in the place of every text's first words. No token of a causal tower sees those
after it, so from there on these first tokens are the same in all texts of an image.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from medzsad.detectors.clip.attention import merge_heads, rest_of_block, split_heads
from medzsad.detectors.clip.backbone import BlockHook, FrozenCLIP
from medzsad.detectors.clip.towers import Attention, Block


class Layout(NamedTuple):
    """How P texts of T tokens lie in one row: S common tokens, then each text's own up to its end.

    Attributes:
        start: S.
        shape: (P, T - S), of the tokens after the start.
        own: int64, which of these, numbered through all texts, lie in the row, in their order.
        ends: int64 (P,), the place of each text's end in the row.
    """

    start: int
    shape: tuple[int, int]
    own: Tensor
    ends: Tensor

    @classmethod
    def of(cls, ends: Tensor, length: int, start: int) -> Layout:
        """Return the layout of texts of ``length`` T with ends at (P,), the first ``start`` tokens alike."""
        own = torch.arange(start, length, device=ends.device) <= ends[:, None]
        last = start + own.sum(1).cumsum(0) - 1
        places = last.where(ends >= start, ends)
        return cls(start, (own.shape[0], own.shape[1]), own.flatten().nonzero()[:, 0], places)


def encode_after_first_block(
    clip: FrozenCLIP, tokens: Tensor, ends: Tensor, *, start: int, images: int, before_block: BlockHook
) -> Tensor:
    """Features of P texts whose first tokens a hook makes alike before the text tower's second block.

    The numbers are those of :meth:`FrozenCLIP.encode_text` with that hook, up to rounding.

    Args:
        clip: a CLIP with a causal text tower.
        tokens: (P, T, text width) out of the first block, from :meth:`FrozenCLIP.run_text_blocks`.
        ends: int64 (P,), positions to read.
        start: S, how many tokens are alike in all texts: the first, and those that the hook overwrites.
        images: B, for which the hook's tokens differ.
        before_block: gets (B, N, text width), N at least S, before each block but the first. Before the
            second it must overwrite tokens 1 to S - 1, and it may never overwrite others.

    Returns:
        (B, P, D), not L2-normalised.
    """
    layout = Layout.of(ends, tokens.shape[1], start)
    own = tokens[:, start:].flatten(0, 1)[layout.own]
    row = torch.cat([tokens[:1, :start], own[None]], 1).expand(images, -1, -1)
    depth = len(clip.text_tower.transformer.resblocks)
    for index, block in enumerate(clip.text_tower.transformer.resblocks[1:], 1):
        row = clip.run_block(_block, block, before_block(index, row), layout, index == depth - 1)
    return clip.read_text(row)


def _block(block: Block, row: Tensor, layout: Layout, last: bool) -> Tensor:
    """Return a block of the text tower on a row (B, N, C); of the last one only the texts' ends come out."""
    attended = _attention(block.attn, block.ln_1(row), layout)
    if last:
        attended, row = attended[:, :, layout.ends], row[:, layout.ends]
    return rest_of_block(block, row, merge_heads(block.attn, attended))


def _attention(attention: Attention, x: Tensor, layout: Layout) -> Tensor:
    """Causal attention within each text of a row (B, N, C): (B, heads, N, C / heads)."""
    query, key, value = split_heads(attention, x)
    start, (texts, own) = layout.start, layout.shape
    common = F.scaled_dot_product_attention(
        query[:, :, :start], key[:, :, :start], value[:, :, :start], is_causal=True
    )
    if own == 0:
        return common
    # Each text by itself, filled up behind its end, where no token that counts looks.
    asked, keys, values = (_by_text(part, layout) for part in (query, key, value))
    seen = torch.ones(start + own, start + own, dtype=torch.bool, device=x.device).tril()[start:]
    attended = F.scaled_dot_product_attention(asked[:, :, start:], keys, values, attn_mask=seen)
    attended = attended.unflatten(0, (len(x), texts)).transpose(1, 2).flatten(2, 3)
    return torch.cat([common, attended.index_select(2, layout.own)], 2)


def _by_text(row: Tensor, layout: Layout) -> Tensor:
    """(B, heads, N, d) of a row laid out as (B * P, heads, T, d)."""
    # Copied to places that differ, and the start expanded: gradients are sums in a fixed order.
    texts, own = layout.shape
    filled = row.new_zeros(*row.shape[:2], texts * own, row.shape[3])
    filled = filled.index_copy(2, layout.own, row[:, :, layout.start :]).unflatten(2, (texts, own))
    common = row[:, :, None, : layout.start].expand(-1, -1, texts, -1, -1)
    return torch.cat([common, filled], 3).transpose(1, 2).flatten(0, 1)
