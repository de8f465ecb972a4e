"""Products by oneDNN's layout against PyTorch's own, and where they are left alone."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from monai.data import MetaTensor
from open_clip.transformer import QuickGELU
from torch import Tensor, nn

from medzsad.detectors import products

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="PyTorch without oneDNN")


@pytest.fixture(autouse=True)
def onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine where it is faster, and for tensors of every size."""
    monkeypatch.setattr(products, "prefers_onednn", lambda: True)
    monkeypatch.setattr(products, "multiplies_bf16", lambda: False)
    monkeypatch.setattr(products, "LEAST_WORK", 0)
    monkeypatch.setattr(products, "LEAST_TOKENS", 0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
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
@pytest.mark.parametrize("asks", [1, 9, 130])
def test_attention(
    tokens: int, asks: int, layouts: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "BLOCK_BYTES", 4 * 100 * tokens)
    query, key, value = torch.randn(2, 3, asks, 16), *torch.randn(2, 2, 3, tokens, 16)
    expected = F.scaled_dot_product_attention(query, key, value)
    torch.testing.assert_close(products.attention(query, key, value), expected)
    assert layouts == ([(asks, 16)] if asks < 100 else [(100, 16), (30, 16)]) * 6


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


@pytest.fixture
def bf16(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """As on a processor that multiplies bfloat16; counts how often attention was float32 after all."""
    seen: list[int] = []
    in_float32 = products._attention_in_float32

    def counted(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        seen.append(query.shape[2])
        return in_float32(query, key, value)

    monkeypatch.setattr(products, "multiplies_bf16", lambda: True)
    monkeypatch.setattr(products, "_attention_in_float32", counted)
    return seen


@pytest.mark.parametrize("strength", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("shape", [(1, 2, 577, 64), (2, 3, 90, 20), (1, 1, 1, 16)])
def test_attention_of_bfloat16_products(
    shape: tuple[int, ...], strength: float, bf16: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "BLOCK_BYTES_BF16", 0)  # blocks of 64 queries
    query, key, value = torch.randn(3, *shape)
    query, key, value = (strength * query).bfloat16(), key.bfloat16(), value.bfloat16()
    for asked in (query, query[:, :, :1]):
        exact = F.scaled_dot_product_attention(*(part.double() for part in (asked, key, value)))
        ours = products.attention(asked, key, value)
        assert ours.dtype == torch.bfloat16
        off = (ours.double() - exact).square().mean().sqrt()
        theirs = (F.scaled_dot_product_attention(asked, key, value).double() - exact).square().mean().sqrt()
        assert off <= 3 * theirs + 1e-4
    assert bf16 == []


@pytest.mark.parametrize(("height", "float32"), [(2, []), (60, [100])])
def test_a_score_that_no_sample_told_of(height: int, float32: list[int], bf16: list[int]) -> None:
    query, key, value = torch.randn(3, 1, 2, 100, 16).bfloat16()
    query[0, 1, 70], key[0, 1, 5] = height, 6  # not among the keys that are looked at
    scores = (query.double() @ key.double().transpose(-1, -2)) / 4
    assert (scores[0, 1, 70, 5] > scores[0, 1, 70, :: products.SAMPLED].max() + 88) == bool(float32)
    exact = F.scaled_dot_product_attention(query.double(), key.double(), value.double())
    ours = products.attention(query, key, value)
    assert bf16 == float32
    torch.testing.assert_close(ours.double(), exact, rtol=0.02, atol=0.02)
    torch.testing.assert_close(ours[0, 1, 70], value[0, 1, 5], rtol=0.01, atol=0.01)


def test_what_is_not_a_number_stays_so(bf16: list[int]) -> None:
    query, key, value = torch.randn(3, 1, 1, 100, 16).bfloat16()
    value[0, 0, 3, 2] = torch.nan
    ours = products.attention(query, key, value)
    assert ours[..., 2].isnan().all()
    assert ours[..., 3].isfinite().all()


@pytest.mark.parametrize("activation", [nn.GELU(), nn.GELU("tanh"), QuickGELU(), nn.ReLU()])
def test_mlp(activation: nn.Module, layouts: list[tuple[int, ...]]) -> None:
    layers = nn.Sequential(nn.Linear(24, 96), activation, nn.Linear(96, 24)).requires_grad_(False)
    x = torch.randn(2, 7, 24)
    torch.testing.assert_close(products.mlp(layers, x), layers(x))
    assert layouts


def test_layers_that_do_more_than_an_mlp_are_called_as_they_are(layouts: list[tuple[int, ...]]) -> None:
    class Doubled(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return 2 * super().forward(input)

    class Shifted(nn.Sequential):
        def forward(self, input: Tensor) -> Tensor:
            return 1 + super().forward(input)

    def parts(first: nn.Module | None = None) -> list[nn.Module]:
        return [first or nn.Linear(24, 24), nn.GELU(), nn.Linear(24, 24)]

    x = torch.randn(2, 7, 24)
    replaced = nn.Sequential(*parts())
    replaced[2].forward = lambda given: 3 * given
    hooked = [nn.Sequential(*parts()) for _ in range(4)]
    for layers, place in zip(hooked, (*hooked[0], hooked[3]), strict=False):
        target = layers if place is hooked[3] else layers[list(hooked[0]).index(place)]
        target.register_forward_hook(lambda module, given, result: result + 1)
    for layers in (
        nn.Sequential(*parts()[:2]),
        nn.Sequential(*parts(Doubled(24, 24))),
        Shifted(*parts()),
        nn.Identity(),
        replaced,
        *hooked,
    ):
        torch.testing.assert_close(products.mlp(layers.requires_grad_(False), x), layers(x))
    assert layouts == []


def test_odd_shapes_are_pytorchs(layouts: list[tuple[int, ...]]) -> None:
    x, weight = torch.randn(2, 5, 24), torch.randn(40, 24)
    strided, wide = torch.randn(80)[::2], torch.randn(1).expand(40)
    for bias in (strided, wide, torch.randn(())):
        assert torch.equal(products.linear(x, weight, bias), F.linear(x, weight, bias))
    for empty in (x[:0], x[:, :0]):
        assert torch.equal(products.linear(empty, weight, None), F.linear(empty, weight, None))
    many = torch.randn(1, 1, 2, 2, 5, 24)
    assert torch.equal(products.linear(many, weight, None), F.linear(many, weight, None))
    query, key, value = torch.randn(3, 2, 3, 9, 16)
    for parts in (
        (query[0], key[0], value[0]),
        (query, key, value[..., :8]),
        (query[:1], key, value),
        (query, key[:, :1], value[:, :1]),
    ):
        assert torch.equal(products.attention(*parts), F.scaled_dot_product_attention(*parts))
    assert layouts == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_quick_gelu_gives_open_clips_numbers(dtype: torch.dtype) -> None:
    x = torch.linspace(-30, 30, 4001).to(dtype)
    kept = x.clone()
    assert torch.equal(products.quick_gelu(x), QuickGELU()(x))
    assert torch.equal(x, kept)


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


@pytest.mark.filterwarnings("ignore:TF32")
def test_onednn_can_be_switched_off(layouts: list[tuple[int, ...]]) -> None:
    x, layer = torch.randn(2, 5, 24), nn.Linear(24, 40).requires_grad_(False)
    with torch.backends.mkldnn.flags(enabled=False):
        products.apply(layer, x)
    assert layouts == []


def test_subclasses_of_tensors_are_left_to_themselves(layouts: list[tuple[int, ...]]) -> None:
    layer = nn.Linear(24, 40).requires_grad_(False)
    seen = products.apply(layer, MetaTensor(torch.randn(2, 5, 24), meta={"name": "scan"}))
    assert isinstance(seen, MetaTensor)
    assert layouts == []


def test_graphs_hold_ordinary_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    class Tower(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mlp = nn.Sequential(nn.Linear(24, 48), QuickGELU(), nn.Linear(48, 24))

        def forward(self, x: Tensor) -> Tensor:
            parts = products.linear(x, self.mlp[0].weight, None).view(-1, 9, 2, 24).transpose(1, 2)
            return products.mlp(self.mlp, x) + products.attention(parts, parts, parts).transpose(1, 2).mean(2)

    tower, x = Tower().eval().requires_grad_(False), torch.randn(3, 9, 24)
    expected = tower(x)
    for least in (0, 10**9):  # of what is small and of what is not, at any number of images
        monkeypatch.setattr(products, "LEAST_WORK", least)
        monkeypatch.setattr(products, "LEAST_TOKENS", least)
        sizes = {"x": {0: torch.export.Dim("batch", min=1, max=4096)}}
        graph = torch.export.export(tower, (x,), strict=False, dynamic_shapes=sizes)
        assert "mkldnn" not in graph.graph_module.code
        torch.testing.assert_close(graph.module()(x), expected)
        traced = torch.jit.trace(tower, (x,))
        assert "mkldnn" not in str(traced.inlined_graph)
        torch._dynamo.reset()
        torch.testing.assert_close(torch.compile(tower, backend="eager", fullgraph=True)(x), expected)


@pytest.mark.parametrize(
    ("vendor", "capability", "expected"),
    [
        ("vendor_id\t: AuthenticAMD", "AVX512", True),
        ("vendor_id\t: AuthenticAMD", "AVX2", False),
        ("vendor_id\t: GenuineIntel", "AVX512", False),
        ("x86_64", "AVX512", False),
        ("AMD64 Family 26 Model 2 Stepping 1, AuthenticAMD", "AVX512", True),
        ("", "AVX512", False),
    ],
)
def test_machines(monkeypatch: pytest.MonkeyPatch, vendor: str, capability: str, expected: bool) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(products, "_vendor", lambda: vendor)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    assert products.prefers_onednn.__wrapped__() is expected
