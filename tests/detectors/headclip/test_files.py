"""HeadCLIP's weights in plausible layouts: recognised, mapped by hand, or refused with a listing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from medzsad.detectors.headclip.files import parse_map, read_headclip
from medzsad.detectors.headclip.layouts import Tower
from medzsad.errors import ModelNotReady
from medzsad.zoo.convert import recognise

TOWER = Tower(depth=24, heads=16, text_width=768)
GENERATOR = torch.Generator().manual_seed(5)


def random(*shape: int, around: float = 0.0) -> Tensor:
    return around + 0.1 * torch.randn(shape, generator=GENERATOR)


PROMPTS = {
    "ctx_pos": random(1, 1, 12, 768),
    "ctx_neg": random(1, 1, 12, 768),
    **{f"compound_prompts_text.{i}": random(4, 768) for i in range(8)},
    # What AnomalyCLIP's checkpoints hold beside, and nothing reads.
    **{f"compound_prompt_projections.{i}.weight": random(8, 768) for i in range(8)},
    "token_prefix_pos": random(1, 1, 1, 768),
    "tokenized_prompts_pos": torch.zeros(1, 77, dtype=torch.int64),
}
W, V = random(24, 16, around=1), random(24, 16, around=1)


def nested(prompts: dict[str, Tensor], **more: Any) -> dict[str, Any]:
    return {"prompt_learner": prompts, **more}


def flat(**more: Tensor) -> dict[str, Tensor]:
    return {f"module.prompt_learner.{name}": tensor for name, tensor in PROMPTS.items()} | more


def numbered(pattern: str, rows: Tensor, first: int = 0, shape: tuple[int, ...] = (16,)) -> dict[str, Tensor]:
    return {pattern.format(first + i): row.reshape(shape).clone() for i, row in enumerate(rows)}


def last(rows: Tensor, count: int) -> Tensor:
    return torch.cat([torch.ones(24 - count, 16), rows[-count:]])


LAYOUTS: dict[str, tuple[Callable[[], dict[str, Any]], dict[str, Tensor]]] = {
    "one tensor": (lambda: nested(PROMPTS, head_weights=W), {"patch": W}),
    "one tensor, singletons": (lambda: nested(PROMPTS, lhw=W.reshape(24, 1, 16, 1, 1)), {"patch": W}),
    "one tensor, leading singletons": (lambda: nested(PROMPTS, alpha=W[None, None]), {"patch": W}),
    "one tensor, transposed": (lambda: nested(PROMPTS, head_scale=W.T.contiguous()), {"patch": W}),
    "one tensor, 19 layers": (lambda: nested(PROMPTS, head_weights=W[-19:]), {"patch": last(W, 19)}),
    "half precision": (lambda: nested(PROMPTS, head_weights=W.half()), {"patch": W.half().float()}),
    "per layer, a list": (lambda: nested(PROMPTS, head_weights=list(W)), {"patch": W}),
    "per layer, 19 in a list": (
        lambda: nested(PROMPTS, head_weights={str(i): row for i, row in enumerate(W[-19:])}),
        {"patch": last(W, 19)},
    ),
    "per block, from 0": (
        lambda: flat(**numbered("visual.transformer.resblocks.{}.attn.lhw", W[-19:], 5, (1, 16, 1, 1))),
        {"patch": last(W, 19)},
    ),
    "per layer, from 1": (lambda: flat(**numbered("layer{}.head_weight", W, 1)), {"patch": W}),
    "one block": (lambda: flat(**numbered("blocks.{}.head_weight", W[-1:], 23)), {"patch": last(W, 1)}),
    "two tensors": (
        lambda: nested(PROMPTS, image_encoder={"lhw_vv": W, "lhw_ori": V}),
        {"patch": W, "image": V},
    ),
    "two tensors, different layers": (
        lambda: nested(PROMPTS, head_weights={"patch": W[-19:], "image": V}),
        {"patch": last(W, 19), "image": V},
    ),
    "two lists": (
        lambda: flat(**numbered("heads.pixel.{}", W), **numbered("heads.global.{}", V)),
        {"patch": W, "image": V},
    ),
    "both paths in one": (
        lambda: nested(PROMPTS, head_weights=torch.stack([W, V])),
        {"patch": W, "image": V},
    ),
    "the ordinary path alone": (lambda: nested(PROMPTS, image_head_weights=W), {"image": W}),
    "beside an optimiser and a CLIP": (
        lambda: {
            "state_dict": flat(
                head_weights=W,
                **{
                    "visual.conv1.weight": random(8, 3, 14, 14),
                    "visual.transformer.resblocks.0.attn.in_proj_bias": random(16),
                    "visual.ln_post.weight": random(16),
                },
            ),
            "optimizer": {"state": {0: {"exp_avg": random(24, 16)}}},
            "epoch": 15,
        },
        {"patch": W},
    ),
    "prompts under names of their own": (
        lambda: {
            "prompts.normal": PROMPTS["ctx_pos"],
            "prompts.abnormal": PROMPTS["ctx_neg"],
            "deep": torch.stack([PROMPTS[f"compound_prompts_text.{i}"] for i in range(8)]),
            **{f"text.{i}": PROMPTS[f"compound_prompts_text.{i}"] for i in range(8)},
            "head_weights": W,
        },
        {"patch": W},
    ),
}


FLAT = [name for name, (make, _) in LAYOUTS.items() if all(isinstance(t, Tensor) for t in make().values())]


@pytest.mark.parametrize(
    ("layout", "suffix"), [*((n, ".pth") for n in LAYOUTS), *((n, ".safetensors") for n in FLAT)]
)
def test_a_plausible_layout_is_recognised(layout, suffix, tmp_path) -> None:
    make, heads = LAYOUTS[layout]
    path = tmp_path / f"headclip{suffix}"
    if suffix == ".pth":
        torch.save(make(), path)
    else:
        save_file({name: tensor.contiguous().clone() for name, tensor in make().items()}, path)
    source = recognise(path)
    assert source.kind == "headclip"
    found = {n.removeprefix("head_weights."): t for n, t in source.tensors.items() if "head_w" in n}
    assert found.keys() == heads.keys()
    for name, weights in heads.items():
        assert torch.equal(found[name], weights)
    for name, tensor in PROMPTS.items():
        if name.startswith(("ctx", "compound_prompts_text")):
            assert torch.equal(source.tensors[f"prompt_learner.{name}"], tensor)
    assert len(source.tensors) == 10 + len(heads)
    assert all("\n" not in note for note in source.notes)


def read(content: dict[str, Tensor], *mapping: str, **options: Any) -> tuple[dict[str, Tensor], list[str]]:
    found = read_headclip(content, lambda: TOWER, mapping=parse_map(mapping), origin="x.pth", **options)
    assert found is not None
    return found


def test_what_was_assumed_is_said() -> None:
    _, notes = read(PROMPTS | {"lhw": W[-19:], "other.thing": torch.zeros(3)})
    assert any("lhw: the only head weights, taken for the patch (V-V) path" in note for note in notes)
    assert any("head weights of the patch path: layers 6 to 24 of 24, 16 heads, mean 1" in n for n in notes)
    assert any("not used: other.thing (3,)" in note for note in notes)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (PROMPTS | {"head_weights": random(24, 12)}, "do not fit a tower of 24 layers with 16 heads"),
        (PROMPTS | {"a_head": W, "b_head": V}, "2 groups of tensors may be head weights"),
        (PROMPTS | {"a_head": W, "b_head": V, "c_head": V}, "3 groups of tensors"),
        (PROMPTS | numbered("head.{}", W[:4], 8), "count from 0 or from 1"),
        ({"head_weights": W}, "prompts ctx_pos and ctx_neg of one shape"),
        (
            {"head_weights": W, "ctx_pos": random(1, 1, 12, 512), "ctx_neg": random(1, 1, 12, 512)},
            "`backbone`",
        ),
        (PROMPTS | {"head_weights": torch.full((24, 16), torch.nan)}, "no finite numbers"),
    ],
)
def test_what_cannot_be_told_is_refused_with_a_listing(content, message) -> None:
    with pytest.raises(ModelNotReady, match=r"x\.pth") as caught:
        read(content)
    text = str(caught.value)
    assert message in text
    assert "\n" not in text
    assert len(text) < 2500
    if "finite" not in message:
        assert "head_weights" in text
        assert "`mapping` THEIRS=OURS" in text
        assert "(24, " in text or "head.{8-11} (16,)" in text


MAPPED = {
    "a": PROMPTS["ctx_pos"].reshape(12, 768),
    "module.b": PROMPTS["ctx_neg"],
    **{f"t.{i}.v2": PROMPTS[f"compound_prompts_text.{i}"] for i in range(8)},
}
PROMPT_MAP = ("a=ctx_pos", "module.b=ctx_neg", "t.*.v2=compound_prompts_text.*")


@pytest.mark.parametrize(
    ("weights", "mapping", "heads"),
    [
        ({"q": W.reshape(-1)}, ["q=head_weights.patch"], {"patch": W}),
        ({"q": W, "r": V}, ["q=head_weights.image", "r=head_weights.patch"], {"patch": V, "image": W}),
        (numbered("x{}_y", W, 0), ["x*_y=head_weights.image.*"], {"image": W}),
        (
            {"six": W[5], "nine": W[8]},
            ["six=head_weights.patch.6", "nine=head_weights.patch.9"],
            {"patch": torch.stack([W[i] if i in (5, 8) else torch.ones(16) for i in range(24)])},
        ),
        ({}, [], {}),
    ],
)
def test_a_file_mapped_by_hand(weights, mapping, heads, tmp_path) -> None:
    torch.save(MAPPED | weights, tmp_path / "x.pth")
    if weights:
        with pytest.raises(ModelNotReady, match=r"it holds .*`mapping` THEIRS=OURS"):
            recognise(tmp_path / "x.pth")
    source = recognise(tmp_path / "x.pth", mapping=parse_map([*PROMPT_MAP, *mapping]))
    assert source.kind == ("headclip" if heads else "anomalyclip")
    for name, tensor in PROMPTS.items():
        if name.startswith(("ctx", "compound_prompts_text")):
            assert torch.equal(source.tensors[f"prompt_learner.{name}"], tensor)
    for path, expected in heads.items():
        assert torch.equal(source.tensors[f"head_weights.{path}"], expected)


@pytest.mark.parametrize(
    "pairs",
    [["a"], ["=ctx_pos"], ["a=prompts"], ["a*=ctx_pos"], ["a=ctx_pos", "b=ctx_pos"], ["a=head_weights.vv"]],
)
def test_a_map_that_says_nothing_is_refused(pairs) -> None:
    with pytest.raises(ModelNotReady, match="`mapping`"):
        parse_map(pairs)


def test_a_map_of_a_name_that_the_file_lacks_lists_what_it_has() -> None:
    with pytest.raises(ModelNotReady, match=r"no such tensor; it holds .*ctx_pos \(1, 1, 12, 768\)"):
        read(PROMPTS, "nothing=head_weights.patch")


def test_weights_before_a_softmax_or_sigmoid_become_factors() -> None:
    content = PROMPTS | {"head_weights": W - 1}
    found, _ = read(content, parametrisation="softmax")
    assert torch.allclose(found["head_weights.patch"], 16 * (W - 1).softmax(-1))
    found, _ = read(content, parametrisation="sigmoid")
    assert torch.allclose(found["head_weights.patch"], 2 * (W - 1).sigmoid())
