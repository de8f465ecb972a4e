"""Texts with a common start against the same texts encoded one by one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from medzsad.detectors.clip.backbone import BlockHook, FrozenCLIP
from medzsad.detectors.clip.shared_prefix import Layout, encode_after_first_block

IMAGES, LENGTH = 2, 3


@pytest.fixture
def clip(tiny_config: dict[str, Any]) -> FrozenCLIP:
    tiny_config["text_cfg"]["layers"] = 5
    return FrozenCLIP.build(tiny_config, None, text=True)


@pytest.fixture
def embeddings() -> Tensor:
    texts = torch.randn(4, 9, 64, generator=torch.Generator().manual_seed(1))
    texts[:, 0] = texts[0, 0]  # the start-of-text token
    return texts


def inserted(count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(2)
    shape = (IMAGES, LENGTH, 64)
    return [torch.randn(shape, generator=generator).requires_grad_() for _ in range(count)]


def overwriting(tokens: list[Tensor], texts: int = 1) -> BlockHook:
    """Puts ``tokens`` in the place of tokens 1 to LENGTH, before the second block and the next."""

    def hook(block: int, seen: Tensor) -> Tensor:
        if not 1 <= block <= len(tokens):
            return seen
        new = tokens[block - 1].repeat_interleave(texts, 0)
        return torch.cat([seen[:, :1], new, seen[:, 1 + LENGTH :]], 1)

    return hook


def one_by_one(clip: FrozenCLIP, embeddings: Tensor, ends: Tensor, tokens: list[Tensor]) -> Tensor:
    """Every text of every image by itself."""
    texts = len(embeddings)
    features = clip.encode_text(
        embeddings.repeat(IMAGES, 1, 1),
        ends.repeat(IMAGES),
        before_block=overwriting(tokens, texts),
    )
    return features.unflatten(0, (IMAGES, texts))


def together(clip: FrozenCLIP, first: Tensor, ends: Tensor, tokens: list[Tensor]) -> Tensor:
    hook = overwriting(tokens)
    return encode_after_first_block(clip, first, ends, start=1 + LENGTH, images=IMAGES, before_block=hook)


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize(
    "ends",
    [
        pytest.param([8, 4, 6, 5], id="of several lengths"),
        pytest.param([8, 2, 3, 5], id="ends within the start"),
        pytest.param([1, 2, 3, 0], id="nothing after the start"),
    ],
)
def test_features_and_gradients_are_the_same(
    clip: FrozenCLIP, embeddings: Tensor, count: int, ends: list[int]
) -> None:
    places = torch.tensor(ends)
    tokens = inserted(count)
    expected = one_by_one(clip, embeddings, places, tokens)
    with torch.no_grad():
        first = clip.run_text_blocks(embeddings, last=1)
    given = inserted(count)
    found = together(clip, first, places, given)
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(found[0], found[1])
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(3))
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    assert tokens[-1].grad.abs().max() > 0  # of those before, the next ones overwrite what nothing has seen
    for one, other in zip(given, tokens, strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-5)


def test_a_text_may_have_no_token_after_the_start(clip: FrozenCLIP, embeddings: Tensor) -> None:
    short, ends, tokens = embeddings[:, : 1 + LENGTH], torch.tensor([3, 1, 2, 3]), inserted(2)
    first = clip.run_text_blocks(short, last=1)
    torch.testing.assert_close(together(clip, first, ends, tokens), one_by_one(clip, short, ends, tokens))


def test_checkpointing_changes_no_gradient(clip: FrozenCLIP, embeddings: Tensor) -> None:
    gradients = []
    for clip.checkpointing in (False, True):
        tokens = inserted(2)
        first = clip.run_text_blocks(embeddings, last=1)
        together(clip, first, torch.tensor([8, 4, 6, 5]), tokens).square().sum().backward()
        gradients.append([token.grad for token in tokens])
    for plain, again in zip(*gradients, strict=True):
        torch.testing.assert_close(again, plain)


def test_only_tokens_up_to_the_ends_lie_in_the_row() -> None:
    layout = Layout.of(torch.tensor([5, 1, 3]), length=6, start=2)
    assert layout.shape == (3, 4)
    assert layout.own.tolist() == [0, 1, 2, 3, 8, 9]
    assert layout.ends.tolist() == [5, 1, 7]


def test_gradients_are_the_same_every_time(clip: FrozenCLIP) -> None:
    texts, ends = torch.randn(48, 14, 64), torch.randint(6, 14, (48,))
    first = clip.run_text_blocks(texts, last=1)
    seen = []
    for _ in range(3):
        (token,) = inserted(1)
        together(clip, first, ends, [token]).square().sum().backward()
        seen.append(token.grad)
    assert torch.equal(seen[0], seen[1])
    assert torch.equal(seen[0], seen[2])
