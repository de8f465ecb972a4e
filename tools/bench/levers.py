r"""Ways to compute the two costly parts of a block, one beside the other: attention and matrix products.

    python tools/bench/levers.py --precision bf16

Of a ViT-L/14 at 518 px: 1370 tokens, 16 heads of 64. "filled up" attends to keys filled up to a multiple of
16 without correcting the result, so it is a bound; "masked" corrects it by an additive bias. V-V attention
asks with the values; "each pair once" uses that its scores are symmetric. "oneDNN's layout" is
:mod:`medzsad.detectors.products`, which is used where
:func:`~medzsad.detectors.products.prefers_onednn` says so; in bf16 its attention is float32, and products
stay PyTorch's. "packed" multiplies by weights that oneDNN reordered before, with operators that PyTorch keeps
to itself; a block's four products, with the weights of 12 blocks. QuickGELU is what CLIPs of OpenAI have in
place of GELU.
"""

from __future__ import annotations

import argparse

import torch
import torch.nn.functional as F
from machine import DTYPES, best, describe
from torch import Tensor

from medzsad.detectors import products as ours

TOKENS, WIDTH, HEADS = 1370, 1024, 16
WEIGHTS = {"qkv": (3072, 1024), "out": (1024, 1024), "mlp up": (4096, 1024), "mlp down": (1024, 4096)}
BLOCKS = 12


def written_out(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention by products and a softmax."""
    return (query * query.shape[-1] ** -0.5 @ key.transpose(-1, -2)).softmax(-1) @ value


def each_pair_once(value: Tensor, block: int = 274) -> Tensor:
    """V-V attention of (heads, N, D): scores are symmetric, so each pair of blocks is multiplied once.

    That takes one shift for all rows in place of each row's maximum: no score exceeds the largest square.
    Scores far below it would underflow; random values do not.
    """
    scaled = value * value.shape[-1] ** -0.5
    shift = (scaled * value).sum(-1).amax(-1)[:, None, None]
    sums, norms = torch.zeros_like(value), torch.zeros_like(value[..., :1])
    parts = [slice(at, at + block) for at in range(0, value.shape[1], block)]
    for number, rows in enumerate(parts):
        for columns in parts[number:]:
            weights = torch.baddbmm(shift, scaled[:, rows], value[:, columns].transpose(1, 2), beta=-1).exp_()
            sums[:, rows] += weights @ value[:, columns]
            norms[:, rows] += weights.sum(-1, keepdim=True)
            if rows is not columns:
                sums[:, columns] += weights.transpose(1, 2) @ value[:, rows]
                norms[:, columns] += weights.sum(1)[..., None]
    return sums / norms


def masked(filled: int, dtype: torch.dtype) -> Tensor:
    """Return an additive bias (1, filled) that hides what keys were filled up with."""
    bias = torch.zeros(1, filled, dtype=dtype)
    bias[:, TOKENS:] = -torch.inf
    return bias


def attention(precision: str, repeats: int, compiled: bool) -> dict[str, float]:
    """Seconds a call."""
    filled = -(-TOKENS // 16) * 16
    parts = [torch.randn(1, HEADS, filled, WIDTH // HEADS).to(DTYPES[precision]) for _ in range(3)]
    query, key, value = (part[:, :, :TOKENS].contiguous() for part in parts)
    fused, bias = F.scaled_dot_product_attention, masked(filled, query.dtype)
    whole = fused(query, key, value)
    for name, other in (
        ("masked", fused(query, parts[1], parts[2], attn_mask=bias)),
        ("each pair once", each_pair_once(value[0])[None] - fused(value, value, value) + whole),
    ):
        print(f"{name}: off by up to {(other - whole).abs().max():.1e}")
    calls = {
        "PyTorch's fused": lambda: fused(query, key, value),
        "oneDNN's layout": lambda: ours.attention(query, key, value),
        "the same, keys filled up": lambda: fused(query, parts[1], parts[2]),
        "the same, masked": lambda: fused(query, parts[1], parts[2], attn_mask=bias),
        "written out": lambda: written_out(query, key, value),
        "V-V: PyTorch's fused": lambda: fused(value, value, value),
        "V-V: oneDNN's layout": lambda: ours.attention(value, value, value),
        "V-V: each pair once": lambda: each_pair_once(value[0]),
    }
    if compiled:
        from torch.nn.attention.flex_attention import flex_attention

        flex = torch.compile(flex_attention)
        calls["flex_attention, compiled"] = lambda: flex(query, key, value)
    return {name: best(call, repeats) for name, call in calls.items()}


def bf16_attention(repeats: int) -> None:
    """Print errors and times of attention in bf16, for scores of several deviations."""
    print("| deviation of scores | how | error (root of the mean square) | ms |\n|---|---|---|---|")
    for deviation in (1, 3, 6):
        query, key, value = torch.randn(3, 1, HEADS, TOKENS, WIDTH // HEADS)
        parts = [part.bfloat16() for part in (deviation * query, key, value)]
        exact = F.scaled_dot_product_attention(*(part.float() for part in parts))
        calls = {
            "PyTorch's fused": lambda parts=parts: F.scaled_dot_product_attention(*parts),
            "bf16 products": lambda parts=parts: ours._attention_in_bf16(*parts),
            "float32, oneDNN's layout": lambda parts=parts: ours._attention_in_float32(*parts),
        }
        for name, call in calls.items():
            off = (call().float() - exact).square().mean().sqrt()
            print(f"| {deviation} | {name} | {off:.1e} | {1e3 * best(call, repeats):.1f} |", flush=True)


def products(precision: str, repeats: int) -> dict[str, float]:
    """Seconds for the products of one block."""
    pointwise = torch.ops.mkldnn._linear_pointwise
    found = {"linear": 0.0, "oneDNN's layout": 0.0, "linear, packed": 0.0}
    for rows, columns in WEIGHTS.values():
        x = torch.randn(1, TOKENS, columns).to(DTYPES[precision])
        bias = torch.randn(rows).to(DTYPES[precision])
        plain = [torch.randn(rows, columns).to(DTYPES[precision]) for _ in range(BLOCKS)]
        packed = [torch.ops.mkldnn._reorder_linear_weight(weight, TOKENS) for weight in plain]
        calls = {
            "linear": lambda x=x, b=bias, w=plain: [F.linear(x, one, b) for one in w],
            "oneDNN's layout": lambda x=x, b=bias, w=plain: [ours.linear(x, one, b) for one in w],
            "linear, packed": lambda x=x, b=bias, w=packed: [
                pointwise(x, one, b, "none", [], "") for one in w
            ],
        }
        for name, call in calls.items():
            found[name] += best(call, repeats) / BLOCKS
    return found


def quick_gelu(precision: str, repeats: int) -> dict[str, float]:
    """Seconds a call."""
    from open_clip.transformer import QuickGELU

    hidden = torch.randn(1, TOKENS, 4 * WIDTH).to(DTYPES[precision])
    theirs = QuickGELU()
    calls = {
        "open_clip's": lambda: theirs(hidden),
        "in place (used)": lambda: ours.quick_gelu(hidden),
    }
    return {name: best(call, repeats) for name, call in calls.items()}


@torch.inference_mode()
def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="bf16")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--compiled", action="store_true", help="also flex_attention (needs a C++ compiler)")
    args = parser.parse_args()
    print(describe())
    print(f"oneDNN's layout is used here: {'yes' if ours.prefers_onednn() else 'no'}")
    ours.prefers_onednn, ours.MOST_THREADS = (
        lambda: True,
        torch.get_num_threads(),
    )  # so that both are measured
    if args.precision == "bf16":
        bf16_attention(args.repeats)
    print("| part of a block | how | ms | times as fast |")
    print("|---|---|---|---|")
    for part, results in (
        ("attention", attention(args.precision, args.repeats, args.compiled)),
        ("products", products(args.precision, args.repeats)),
        ("QuickGELU", quick_gelu(args.precision, args.repeats)),
    ):
        first = next(iter(results.values()))
        for name, seconds in results.items():
            print(f"| {part} | {name} | {1e3 * seconds:.1f} | {first / seconds:.2f} |", flush=True)


if __name__ == "__main__":
    main()
