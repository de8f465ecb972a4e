"""Products of float32 matrices, attention among them, by the faster of a CPU's two libraries.

PyTorch multiplies float32 matrices with MKL. On processors that are not Intel's MKL keeps to AVX2, where
oneDNN, which PyTorch has for convolutions, uses AVX-512: a product of a ViT-L/14 takes half of the time
(``tools/bench/levers.py``). Tensors in oneDNN's layout (:meth:`torch.Tensor.to_mkldnn`) are its to multiply;
with ordinary strides the layout is a copy of some tenths of a millisecond. Both give float32 products, summed
in another order.
"""

from __future__ import annotations

import functools
import platform
from collections.abc import Callable
from pathlib import Path
from typing import TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEAST_WORK = 16_000_000  # multiplications of a product below which a change of layout does not pay
LEAST_TOKENS = 400  # of an attention, likewise: each head is a product of its own
MOST_THREADS = 8  # heads come one after the other, where PyTorch's kernel spreads them; measured with 1 and 2
QUICK_GELU = 1.702

Layer = Callable[[Tensor], Tensor]


@functools.cache
def prefers_onednn() -> bool:
    """Whether oneDNN multiplies float32 matrices faster than MKL on this machine."""
    return (
        torch.backends.mkldnn.is_available()
        and torch.backends.mkl.is_available()
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and "GenuineIntel" not in _vendor()
    )


def _vendor() -> str:
    """Return what tells the processor's maker; "GenuineIntel" where that is unknown, so nothing changes."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="ignore").splitlines()
    except OSError:
        return platform.processor() or "GenuineIntel"
    return next((line for line in lines if line.startswith("vendor_id")), "GenuineIntel")


def _for_onednn(*tensors: Tensor | None, cast: bool = False) -> bool:
    """Whether these go to oneDNN: plain float32 on a CPU (with ``cast`` bfloat16, too), nothing to record."""
    given = [tensor for tensor in tensors if tensor is not None]
    dtypes = (torch.float32, torch.bfloat16) if cast else (torch.float32,)
    return (
        prefers_onednn()
        and all(
            type(tensor) in (Tensor, nn.Parameter)
            and tensor.device.type == "cpu"
            and tensor.layout == torch.strided
            and tensor.dtype in dtypes
            for tensor in given
        )
        and not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in given))
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
    )


def _product_for_onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    work = x.numel() * weight.shape[0]
    return work >= LEAST_WORK and not torch.is_autocast_enabled("cpu") and _for_onednn(x, weight, bias)


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
    return isinstance(layer, nn.Linear) and type(layer).forward is nn.Linear.forward and _unhooked(layer)


def _unhooked(layer: nn.Module) -> bool:
    return not layer._forward_hooks and not layer._forward_pre_hooks


def mlp(layers: Layer, x: Tensor) -> Tensor:
    """Return ``layers(x)``, of a transformer's MLP: linear, GELU or QuickGELU, linear.

    Args:
        layers: :class:`torch.nn.Sequential` of three; anything else is called as it is.
        x: tokens (B, N, C).

    Returns:
        (B, N, C).
    """
    if not isinstance(layers, nn.Sequential) or len(layers) != 3 or not _unhooked(layers):
        return layers(x)
    up, activation, down = layers
    if not (_is_linear(up) and _is_linear(down)):
        return layers(x)
    exact = type(activation) is nn.GELU and activation.approximate == "none" and _unhooked(activation)
    if exact and _product_for_onednn(x, up.weight, up.bias) and _for_onednn(down.weight, down.bias):
        # Its hidden layer stays in oneDNN's layout.
        hidden = F.gelu(F.linear(x.to_mkldnn(), up.weight, up.bias))
        return F.linear(hidden, down.weight, down.bias).to_dense()
    hidden = apply(up, x)
    return apply(down, quick_gelu(hidden) if _is_quick_gelu(activation) else activation(hidden))


def _is_quick_gelu(activation: nn.Module) -> bool:
    return type(activation).__name__ == "QuickGELU" and _unhooked(activation)


def quick_gelu(x: Tensor) -> Tensor:
    """Return ``x * sigmoid(1.702 x)``, with one new tensor in place of three where nothing is recorded."""
    if torch.is_grad_enabled() and x.requires_grad:
        return x * torch.sigmoid(QUICK_GELU * x)
    return F.silu(QUICK_GELU * x, inplace=True).mul_(1 / QUICK_GELU)


def attention(query: Tensor, key: Tensor, value: Tensor, *, causal: bool = False) -> Tensor:
    """Scaled dot-product attention, as :func:`torch.nn.functional.scaled_dot_product_attention` gives it.

    Args:
        query: (B, heads, M, D), float32 or bfloat16.
        key: (B, heads, N, D).
        value: (B, heads, N, D).
        causal: a token attends to those before it, and to itself.

    Returns:
        (B, heads, M, D) in the inputs' type. By oneDNN it is computed in float32 for both: PyTorch's kernel
        multiplies bfloat16 by MKL, too, and no faster.
    """
    asks = query.shape[-2]
    if (
        causal
        or asks < LEAST_TOKENS
        or torch.get_num_threads() > MOST_THREADS
        or not _for_onednn(query, key, value, cast=True)
    ):
        return F.scaled_dot_product_attention(query, key, value, is_causal=causal)
    with torch.autocast("cpu", enabled=False):
        scaled = (query.float() * query.shape[-1] ** -0.5).flatten(0, 1)
        keys, values = key.float().flatten(0, 1), value.float().flatten(0, 1)
        batch, heads, _, width = query.shape
        attended = torch.empty(batch, asks, heads, width, dtype=query.dtype)  # as heads are merged
        for number, (ask, one, its) in enumerate(zip(scaled, keys, values, strict=True)):
            sample, head = divmod(number, heads)
            weights = F.linear(ask.to_mkldnn(), one).softmax(-1)
            # Contiguous, a matrix is turned five times as fast.
            attended[sample, :, head] = F.linear(weights, its.contiguous().t()).to_dense()
    return attended.transpose(1, 2)
