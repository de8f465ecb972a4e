"""Products by oneDNN's layout against PyTorch's own, and where they are left alone."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from open_clip.transformer import QuickGELU
from torch import Tensor, nn

from medzsad.detectors import products

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="PyTorch without oneDNN")


@pytest.fixture(autouse=True)
def onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine where it is faster, and for tensors of every size."""
    monkeypatch.setattr(products, "prefers_onednn", lambda: True)
    monkeypatch.setattr(products, "LEAST_WORK", 0)
    monkeypatch.setattr(products, "LEAST_TOKENS", 0)
    torch.manual_seed(0)


@pytest.fixture
def layouts(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Shapes of the tensors that were brought into oneDNN's layout."""
    seen: list[tuple[int, ...]] = []
    original = Tensor.to_mkldnn

    def to_mkldnn(self: Tensor) -> Tensor:
        seen.append(tuple(self.shape))
        return original(self)

    monkeypatch.setattr(Tensor, "to_mkldnn", to_mkldnn)
    return seen


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(5, 24), (2, 5, 24), (2, 3, 5, 24)])
def test_linear(shape: tuple[int, ...], bias: bool, layouts: list[tuple[int, ...]]) -> None:
    x, layer = torch.randn(shape), nn.Linear(24, 40, bias=bias).requires_grad_(False)
    torch.testing.assert_close(products.linear(x, layer.weight, layer.bias), layer(x))
    torch.testing.assert_close(products.apply(layer, x), layer(x))
    assert layouts == [shape] * 2


def test_linear_of_parts_and_transposed_tensors() -> None:
    x, weight, bias = torch.randn(2, 24, 7).transpose(1, 2), torch.randn(72, 24), torch.randn(72)
    for part in (x, x[:, :3]):
        torch.testing.assert_close(
            products.linear(part, weight[24:], bias[24:]), F.linear(part, weight[24:], bias[24:])
        )


@pytest.mark.parametrize("tokens", [1, 9, 130])
@pytest.mark.parametrize("asks", [1, 9])
def test_attention(tokens: int, asks: int, layouts: list[tuple[int, ...]]) -> None:
    query, key, value = torch.randn(2, 3, asks, 16), *torch.randn(2, 2, 3, tokens, 16)
    expected = F.scaled_dot_product_attention(query, key, value)
    torch.testing.assert_close(products.attention(query, key, value), expected)
    assert layouts == [(asks, 16)] * 6


def test_attention_of_large_scores() -> None:
    query, key, value = 30 * torch.randn(3, 1, 2, 20, 16)
    expected = F.scaled_dot_product_attention(query.double(), key.double(), value.double())
    torch.testing.assert_close(products.attention(query, key, value), expected.float(), rtol=1e-4, atol=1e-4)


def test_attention_in_bfloat16_is_no_further_from_the_truth() -> None:
    parts = torch.randn(3, 1, 2, 64, 16).bfloat16()
    exact = F.scaled_dot_product_attention(*parts.double())
    ours = products.attention(*parts)
    assert ours.dtype == torch.bfloat16
    off = (ours.double() - exact).abs().max()
    assert off <= (F.scaled_dot_product_attention(*parts).double() - exact).abs().max()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(products.attention(*parts), ours)


@pytest.mark.parametrize("activation", [nn.GELU(), nn.GELU("tanh"), QuickGELU(), nn.ReLU()])
def test_mlp(activation: nn.Module, layouts: list[tuple[int, ...]]) -> None:
    layers = nn.Sequential(nn.Linear(24, 96), activation, nn.Linear(96, 24)).requires_grad_(False)
    x = torch.randn(2, 7, 24)
    torch.testing.assert_close(products.mlp(layers, x), layers(x))
    assert layouts


def test_other_layers_than_those_of_an_mlp_are_called_as_they_are(layouts: list[tuple[int, ...]]) -> None:
    class Doubled(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return 2 * super().forward(input)

    x = torch.randn(2, 7, 24)
    two = nn.Sequential(nn.Linear(24, 24), nn.GELU())
    hooked = nn.Sequential(nn.Linear(24, 24), nn.GELU(), nn.Linear(24, 24))
    hooked[2].register_forward_hook(lambda module, given, result: result + 1)
    for layers in (two, nn.Sequential(Doubled(24, 24), nn.GELU(), nn.Linear(24, 24)), nn.Identity(), hooked):
        torch.testing.assert_close(products.mlp(layers.requires_grad_(False), x), layers(x))
    assert layouts == []


def test_gradients_are_those_of_pytorch(layouts: list[tuple[int, ...]]) -> None:
    layers = nn.Sequential(nn.Linear(24, 96), QuickGELU(), nn.Linear(96, 24))
    x = torch.randn(2, 7, 24, requires_grad=True)
    for ours, theirs in zip(
        torch.autograd.grad(products.mlp(layers, x).square().sum(), [x, *layers.parameters()]),
        torch.autograd.grad(layers(x).square().sum(), [x, *layers.parameters()]),
        strict=True,
    ):
        assert torch.equal(ours, theirs)
    parts = torch.randn(3, 1, 2, 9, 8, requires_grad=True).unbind(0)
    assert torch.equal(products.attention(*parts), F.scaled_dot_product_attention(*parts))
    assert layouts == []


def test_what_is_small_causal_double_or_under_autocast_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, layouts: list[tuple[int, ...]]
) -> None:
    layer, x = nn.Linear(24, 40).requires_grad_(False), torch.randn(2, 5, 24)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(products.apply(layer, x), layer(x))
    assert torch.equal(products.apply(layer.double(), x.double()), layer(x.double()))
    parts = torch.randn(3, 1, 2, 9, 8)
    causal = products.attention(*parts, causal=True)
    assert torch.equal(causal, F.scaled_dot_product_attention(*parts, is_causal=True))
    monkeypatch.setattr(products, "LEAST_WORK", 2 * 5 * 24 * 40 + 1)
    monkeypatch.setattr(products, "LEAST_TOKENS", 10)
    assert torch.equal(products.apply(layer.float(), x), layer(x))
    assert torch.equal(products.attention(*parts), F.scaled_dot_product_attention(*parts))
    assert layouts == []


def test_many_threads_share_the_heads_of_pytorchs_kernel(
    monkeypatch: pytest.MonkeyPatch, layouts: list[tuple[int, ...]]
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: products.MOST_THREADS + 1)
    products.attention(*torch.randn(3, 1, 2, 9, 8))
    assert layouts == []


def test_graphs_hold_ordinary_operators() -> None:
    class Tower(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mlp = nn.Sequential(nn.Linear(24, 48), QuickGELU(), nn.Linear(48, 24))

        def forward(self, x: Tensor) -> Tensor:
            parts = products.linear(x, self.mlp[0].weight, None).view(1, 9, 2, 24).transpose(1, 2)
            return products.mlp(self.mlp, x) + products.attention(parts, parts, parts).transpose(1, 2).mean(2)

    tower, x = Tower().eval().requires_grad_(False), torch.randn(1, 9, 24)
    graph = torch.export.export(tower, (x,), strict=False)
    assert "mkldnn" not in graph.graph_module.code
    torch.testing.assert_close(graph.module()(x), tower(x))


@pytest.mark.parametrize(
    ("vendor", "capability", "expected"),
    [
        ("vendor_id\t: AuthenticAMD", "AVX512", True),
        ("vendor_id\t: AuthenticAMD", "AVX2", False),
        ("vendor_id\t: GenuineIntel", "AVX512", False),
    ],
)
def test_machines(monkeypatch: pytest.MonkeyPatch, vendor: str, capability: str, expected: bool) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(products, "_vendor", lambda: vendor)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    assert products.prefers_onednn.__wrapped__() is expected
