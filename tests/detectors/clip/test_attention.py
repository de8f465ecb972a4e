"""Our attention against torch's own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from medzsad.detectors.clip.attention import dual_attention, merge_heads, self_attention, split_heads


@pytest.fixture
def attention() -> nn.MultiheadAttention:
    torch.manual_seed(0)
    module = nn.MultiheadAttention(48, 4, batch_first=True).eval()
    nn.init.normal_(module.in_proj_bias)
    nn.init.normal_(module.out_proj.bias)
    return module


@pytest.fixture
def tokens() -> Tensor:
    return torch.randn(2, 9, 48, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("causal", [False, True])
def test_equals_multihead_attention(attention: nn.MultiheadAttention, tokens: Tensor, causal: bool) -> None:
    mask = torch.full((9, 9), float("-inf")).triu(1) if causal else None
    expected = attention(tokens, tokens, tokens, need_weights=False, attn_mask=mask)[0]
    torch.testing.assert_close(self_attention(attention, tokens, causal=causal), expected)


def test_vv_path_attends_with_values(attention: nn.MultiheadAttention, tokens: Tensor) -> None:
    ordinary, vv = dual_attention(attention, tokens)
    torch.testing.assert_close(ordinary, self_attention(attention, tokens))
    value = split_heads(attention, tokens)[2]
    weights = (value @ value.transpose(-1, -2) / 12**0.5).softmax(-1)
    torch.testing.assert_close(vv, merge_heads(attention, weights @ value))


def test_head_weight_zero_removes_that_heads_slice_of_the_output_projection(
    attention: nn.MultiheadAttention, tokens: Tensor
) -> None:
    scale = torch.ones(4)
    scale[2] = 0
    weighted = dual_attention(attention, tokens, head_scale=scale, vv_head_scale=scale)
    with torch.no_grad():
        attention.out_proj.weight[:, 24:36] = 0
    for ours, expected in zip(weighted, dual_attention(attention, tokens), strict=True):
        torch.testing.assert_close(ours, expected)


def test_head_weights_of_one_change_nothing(attention: nn.MultiheadAttention, tokens: Tensor) -> None:
    assert torch.equal(
        self_attention(attention, tokens, head_scale=torch.ones(4)), self_attention(attention, tokens)
    )
