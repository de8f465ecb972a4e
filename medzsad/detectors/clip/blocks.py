"""A block of a CLIP tower, from its own modules: attention as in :mod:`.attention`, then the MLP."""

from __future__ import annotations

from torch import Tensor

from medzsad.detectors.clip.attention import dual_attention, self_attention
from medzsad.detectors.clip.towers import Block


def plain_block(
    block: Block, tokens: Tensor, head_scale: Tensor | None, causal: bool, read: int | None
) -> Tensor:
    """Return a block of either tower on tokens (B, N, C).

    All of them, or only the first ``read`` come out.
    """
    attended = self_attention(block.attn, block.ln_1(tokens), causal=causal, head_scale=head_scale, read=read)
    return rest_of_block(block, tokens[:, :read], attended)


def dual_block(
    block: Block,
    tokens: Tensor,
    path: Tensor,
    head_scale: Tensor | None,
    vv_head_scale: Tensor | None,
    read: int | None,
) -> tuple[Tensor, Tensor]:
    """Return a block of the image tower on the ordinary and the V-V path, both (B, N, C).

    ``read`` as above.
    """
    attended, second = dual_attention(
        block.attn, block.ln_1(tokens), head_scale=head_scale, vv_head_scale=vv_head_scale, read=read
    )
    return rest_of_block(block, tokens[:, :read], attended), path + block.ls_1(second)


def rest_of_block(block: Block, tokens: Tensor, attended: Tensor) -> Tensor:
    """Return what a block of either tower makes of its tokens and its attention's output, both (B, N, C)."""
    tokens = tokens + block.ls_1(attended)
    return tokens + block.ls_2(block.mlp(block.ln_2(tokens)))
