"""Blocks of a CLIP tower: attention with one qkv projection and weights per head, then the MLP.

The tower's own parameters are used (``in_proj_weight``, ``out_proj``), but not
``nn.MultiheadAttention.forward``: it gives no access to single heads and is far slower in bf16 on a CPU.
"""

from __future__ import annotations

from torch import Tensor, nn

from medzsad.detectors import products
from medzsad.detectors.clip.towers import Attention, Block


def split_heads(attention: Attention, x: Tensor, read: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Projects tokens to queries, keys and values.

    Args:
        attention: the block's attention module.
        x: (B, N, C) normalised tokens.
        read: only so many tokens, from the first, ask; None for all.

    Returns:
        Three tensors (B, heads, N, C / heads), the first with ``read`` tokens.
    """
    weight, bias, width = attention.in_proj_weight, attention.in_proj_bias, x.shape[2]
    if read is None:
        query, key, value = _heads(attention, products.linear(x, weight, bias), 3)
        return query, key, value
    ask, answer = (None, None) if bias is None else (bias[:width], bias[width:])
    (query,) = _heads(attention, products.linear(x[:, :read], weight[:width], ask), 1)
    key, value = _heads(attention, products.linear(x, weight[width:], answer), 2)
    return query, key, value


def _heads(attention: Attention, projected: Tensor, parts: int) -> tuple[Tensor, ...]:
    """(B, N, parts * C) to ``parts`` tensors (B, heads, N, C / heads)."""
    batch, length, _ = projected.shape
    return projected.view(batch, length, parts, attention.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)


def merge_heads(attention: Attention, attended: Tensor, head_scale: Tensor | None = None) -> Tensor:
    """``Concat(w[h] * head[h]) W_O + b``: HeadCLIP's learnable head weights (arXiv 2505.22259).

    Args:
        attention: the block's attention module.
        attended: (B, heads, N, C / heads) outputs of the heads.
        head_scale: (heads,) factor of each head, or None for 1.

    Returns:
        (B, N, C).
    """
    if head_scale is not None:
        attended = attended * head_scale.to(attended.dtype).view(1, -1, 1, 1)
    return products.apply(attention.out_proj, attended.transpose(1, 2).flatten(2))


def self_attention(
    attention: Attention,
    x: Tensor,
    *,
    causal: bool = False,
    head_scale: Tensor | None = None,
    read: int | None = None,
) -> Tensor:
    """Ordinary self-attention of tokens (B, N, C), with its output projection.

    ``read`` is :func:`split_heads`'s: so many tokens come out.
    """
    query, key, value = split_heads(attention, x, read)
    return merge_heads(attention, products.attention(query, key, value, causal=causal), head_scale)


def dual_attention(
    attention: Attention,
    x: Tensor,
    *,
    head_scale: Tensor | None = None,
    vv_head_scale: Tensor | None = None,
    read: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Ordinary and V-V self-attention of the same tokens, from one projection.

    In V-V attention the values also serve as queries and keys (AnomalyCLIP, ICLR 2024, section 3.2 "DPAM").

    Args:
        attention: the block's attention module.
        x: (B, N, C) normalised tokens of the ordinary path.
        head_scale: (heads,) factors for the ordinary path.
        vv_head_scale: (heads,) factors for the V-V path.
        read: only so many tokens of the ordinary path are wanted, from the first; None for all.

    Returns:
        Two tensors, ordinary (B, read, C) and V-V attention (B, N, C), both after the output projection.
    """
    query, key, value = split_heads(attention, x, read)
    ordinary = merge_heads(attention, products.attention(query, key, value), head_scale)
    vv = merge_heads(attention, products.attention(value, value, value), vv_head_scale)
    return ordinary, vv


def supports(block: nn.Module) -> bool:
    """Whether ``block`` is a plain pre-norm block that the functions here reproduce exactly."""
    attention = getattr(block, "attn", None)
    plain_attention = isinstance(attention, nn.MultiheadAttention) or (
        getattr(attention, "logit_scale", None) is None
        and getattr(attention, "head_scale", None) is None
        and all(isinstance(getattr(attention, n, None), nn.Identity) for n in ("ln_q", "ln_k", "ln_inner"))
    )
    return (
        plain_attention
        and getattr(attention, "in_proj_weight", None) is not None
        and isinstance(getattr(block, "ln_attn", nn.Identity()), nn.Identity)
        and all(hasattr(block, name) for name in ("ln_1", "ls_1", "ln_2", "ls_2", "mlp"))
    )


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
    return tokens + block.ls_2(products.mlp(block.mlp, block.ln_2(tokens)))
