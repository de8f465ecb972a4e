"""Products of float32 matrices, attention among them, by the faster of a CPU's two libraries.

PyTorch multiplies float32 matrices with MKL. On AMD's processors MKL keeps to AVX2, where oneDNN, which
PyTorch has for convolutions, uses AVX-512: a product of a ViT-L/14 takes half of the time. Tensors in
oneDNN's layout (:meth:`torch.Tensor.to_mkldnn`) are its to multiply. Both give float32 products, summed in
another order. bfloat16 attention, which both compute in float32 there, is multiplied as bfloat16 here, by
:func:`torch.bmm`. ``tools/bench/levers.py`` compares all.
"""

from __future__ import annotations

import functools
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEAST_WORK = 16_000_000  # multiplications of a product below which a change of layout does not pay
LEAST_TOKENS = 400  # of an attention, likewise: each head is a product of its own
MOST_THREADS = 8  # heads come one after the other, where PyTorch's kernel spreads them; measured with 1 and 2
BLOCK_BYTES = 4 * 2**20  # of scores that are held at once: they stay in the cache, and memory does not grow
BLOCK_BYTES_BF16 = 6 * 2**20  # of all heads
SAMPLED = 4  # every so many keys are looked at, to guess a query's highest score
# The sum of a query's weights up to which the guess will do: no score is 12 above it then.
MOST_WEIGHT = 1e5
MAKERS = ("AuthenticAMD", "HygonGenuine")
QUICK_GELU = 1.702

Layer = Callable[[Tensor], Tensor]


@functools.cache
def prefers_onednn() -> bool:
    """Whether oneDNN multiplies float32 matrices faster than MKL on this machine."""
    return (
        torch.backends.mkldnn.is_available()
        and torch.backends.mkl.is_available()
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and any(maker in _vendor() for maker in MAKERS)
    )


@functools.cache
def multiplies_bf16() -> bool:
    """Whether the processor multiplies bfloat16 matrices faster than float32 ones, without Intel's AMX."""
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # of PyTorch 2.10
    return prefers_onednn() and bool(capabilities.get("avx512_bf16"))


def _vendor() -> str:
    """Return a text that names the processor's maker, where that is known."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="ignore").splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith("vendor_id")), "")


def _records() -> bool:
    """Whether a graph is made, of whatever size: it gets PyTorch's own operators."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def _for_onednn(*tensors: Tensor | None, dtype: torch.dtype = torch.float32) -> bool:
    """Whether these go to oneDNN: ordinary tensors with something in them, nothing for autograd to record."""
    given = [tensor for tensor in tensors if tensor is not None]
    return (
        prefers_onednn()
        and bool(torch.backends.mkldnn.enabled)
        and all(
            type(tensor) in (Tensor, nn.Parameter)
            and tensor.device.type == "cpu"
            and tensor.layout == torch.strided
            and tensor.dtype == dtype
            and tensor.numel() > 0
            for tensor in given
        )
        and not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in given))
    )


def _product_for_onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    return (
        not _records()
        and x.numel() * weight.shape[0] >= LEAST_WORK
        and not torch.is_autocast_enabled("cpu")
        and 2 <= x.ndim <= 4
        and _fits(weight, bias)
        and _for_onednn(x, weight, bias)
    )


def _fits(weight: Tensor, bias: Tensor | None) -> bool:
    # oneDNN takes a bias as it lies in memory, whatever its strides.
    return weight.ndim == 2 and (bias is None or (bias.shape == weight.shape[:1] and bias.is_contiguous()))


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return ``x @ weight.T + bias``, as :func:`torch.nn.functional.linear` does.

    Args:
        x: (..., I).
        weight: (O, I).
        bias: (O,), or None.

    Returns:
        (..., O).
    """
    if _product_for_onednn(x, weight, bias):
        return F.linear(x.to_mkldnn(), weight, bias).to_dense()
    return F.linear(x, weight, bias)


def apply(layer: Layer, x: Tensor) -> Tensor:
    """Return ``layer(x)``; of a plain linear layer by :func:`linear`."""
    if _is_linear(layer):
        return linear(x, layer.weight, layer.bias)
    return layer(x)


def _is_linear(layer: Layer) -> TypeGuard[nn.Linear]:
    return isinstance(layer, nn.Linear) and type(layer).forward is nn.Linear.forward and _is_plain(layer)


def _is_plain(layer: nn.Module) -> bool:
    """Whether calling the layer does what its class does, and tells nobody."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return "forward" not in vars(layer) and not any(getattr(layer, name) for name in hooks)


def mlp(layers: Layer, x: Tensor) -> Tensor:
    """Return ``layers(x)``, of a transformer's MLP: linear, GELU or QuickGELU, linear.

    Args:
        layers: :class:`torch.nn.Sequential` of three; anything else is called as it is.
        x: tokens (B, N, C).

    Returns:
        (B, N, C).
    """
    if type(layers) is not nn.Sequential or len(layers) != 3 or not _is_plain(layers):
        return layers(x)
    up, activation, down = layers
    if not (_is_linear(up) and _is_linear(down) and _is_plain(activation)):
        return layers(x)
    exact = type(activation) is nn.GELU and activation.approximate == "none"
    both = _product_for_onednn(x, up.weight, up.bias) and _for_onednn(down.weight, down.bias)
    if exact and both and _fits(down.weight, down.bias):
        # Its hidden layer stays in oneDNN's layout.
        hidden = F.gelu(F.linear(x.to_mkldnn(), up.weight, up.bias))
        return F.linear(hidden, down.weight, down.bias).to_dense()
    hidden = linear(x, up.weight, up.bias)
    quick = type(activation).__name__ == "QuickGELU"
    return linear(quick_gelu(hidden) if quick else activation(hidden), down.weight, down.bias)


def quick_gelu(x: Tensor) -> Tensor:
    """Return ``x * sigmoid(1.702 x)``, open_clip's numbers, with one new tensor where nothing is recorded."""
    if torch.is_grad_enabled() and x.requires_grad:
        return x * torch.sigmoid(QUICK_GELU * x)
    return (QUICK_GELU * x).sigmoid_().mul_(x)


def attention(query: Tensor, key: Tensor, value: Tensor, *, causal: bool = False) -> Tensor:
    """Scaled dot-product attention, as :func:`torch.nn.functional.scaled_dot_product_attention` gives it.

    By oneDNN bfloat16 is computed in bfloat16 where the processor can, else in float32: PyTorch's kernel
    multiplies it by MKL, too, and no faster.

    Args:
        query: (B, heads, M, D).
        key: (B, heads, N, D).
        value: (B, heads, N, D).
        causal: a token attends to those before it, and to itself.

    Returns:
        (B, heads, M, D).
    """
    if causal or _records() or not _attention_for_onednn(query, key, value):
        return F.scaled_dot_product_attention(query, key, value, is_causal=causal)
    with torch.autocast("cpu", enabled=False):
        if query.dtype == torch.bfloat16 and multiplies_bf16():
            return _attention_in_bf16(query, key, value)
        return _attention_in_float32(query, key, value)


def _attention_in_bf16(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention by products of bfloat16 matrices, whose results are bfloat16, too.

    A score loses most where it is large, so a guess of the query's highest one, from a part of the keys, is
    taken off within the product: what counts is near 0 then. Where the guess was far off, the sum of the
    weights tells by how much, and their heads are computed again.
    """
    batch, heads, asks, width = query.shape
    asked = (query.float() * width**-0.5).bfloat16().flatten(0, 1).contiguous()
    turned = key.flatten(0, 1).contiguous().transpose(1, 2)
    # A column of ones sums the weights. One would do, but products come in blocks of 16 columns.
    counted = torch.cat([value.flatten(0, 1), value.new_ones(batch * heads, value.shape[2], 16)], 2)
    shift = torch.bmm(asked, turned[:, :, ::SAMPLED]).amax(-1, keepdim=True)
    attended = torch.empty(batch, asks, heads, width, dtype=query.dtype)  # as heads are merged
    block = max(64, BLOCK_BYTES_BF16 // (2 * batch * heads * key.shape[2]))

    def sums_of(rows: slice, guess: Tensor, chosen: slice | Tensor = slice(None)) -> Tensor:
        weights = torch.baddbmm(guess, asked[chosen, rows], turned[chosen], beta=-1).exp_()
        return torch.bmm(weights, counted[chosen])

    for start in range(0, asks, block):
        rows = slice(start, start + block)
        sums = sums_of(rows, shift[:, rows])
        off = _far_off(sums[..., width])
        if off.any():
            guess = shift[off, rows] + sums[off][..., width : width + 1].float().log().bfloat16()
            sums[off] = sums_of(rows, guess, off)
            off = _far_off(sums[..., width])
        if off.any():  # scores too large for any guess
            exact = _attention_in_float32(query[:, :, rows], key, value)
        else:
            exact = (sums[..., :width] / sums[..., width : width + 1]).unflatten(0, (batch, heads))
        attended[:, rows] = exact.transpose(1, 2)
    return attended.transpose(1, 2)


def _far_off(totals: Tensor) -> Tensor:
    """Return the heads, bool (N,), that have a sum of weights (N, M) that no good guess leaves."""
    return ~((totals > 0.5) & (totals < MOST_WEIGHT)).all(1)


def _attention_in_float32(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention by products of float32 matrices in oneDNN's layout, block by block of each head's queries."""
    batch, heads, asks, width = query.shape
    block = max(64, BLOCK_BYTES // (4 * key.shape[2]))
    scaled = (query.float() * width**-0.5).flatten(0, 1)
    keys, values = key.float().flatten(0, 1), value.float().flatten(0, 1)
    attended = torch.empty(batch, asks, heads, width, dtype=query.dtype)  # as heads are merged
    for number, (ask, one, its) in enumerate(zip(scaled, keys, values, strict=True)):
        sample, head = divmod(number, heads)
        turned = its.contiguous().t().contiguous()  # contiguous before it is turned: far faster
        for start in range(0, asks, block):
            weights = F.linear(ask[start : start + block].to_mkldnn(), one).softmax(-1)
            attended[sample, start : start + block, head] = F.linear(weights, turned).to_dense()
    return attended.transpose(1, 2)


def _attention_for_onednn(query: Tensor, key: Tensor, value: Tensor) -> bool:
    dtype = query.dtype
    cast = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else dtype
    return (
        query.ndim == 4
        and query.shape[2] >= LEAST_TOKENS
        and key.shape == value.shape == (*query.shape[:2], key.shape[2], query.shape[3])
        and torch.get_num_threads() <= MOST_THREADS
        and dtype in (torch.float32, torch.bfloat16)
        and dtype == cast  # else PyTorch's kernel would round its inputs first
        and _for_onednn(query, key, value, dtype=dtype)
    )
