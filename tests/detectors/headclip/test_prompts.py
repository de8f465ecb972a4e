"""Learnable prompts and the published checkpoint format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from medzsad.detectors.clip.backbone import FrozenCLIP
from medzsad.detectors.headclip.prompts import PromptLearner, load_anomalyclip_prompts
from medzsad.errors import ModelNotReady

CONFIG: dict[str, Any] = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 28, "layers": 1, "width": 64, "patch_size": 14},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 4},
}


@pytest.fixture(scope="module")
def clip() -> FrozenCLIP:
    return FrozenCLIP.build(CONFIG, None, text=True)


def test_features_are_unit_vectors_and_train(clip: FrozenCLIP) -> None:
    learner = PromptLearner(64, deep_depth=3)
    features = learner(clip)
    assert features.shape == (2, 32)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(2))
    features[0].square().mul(torch.arange(32)).sum().backward()
    for name, parameter in learner.named_parameters():
        if name == "ctx_neg":
            assert parameter.grad is None or not parameter.grad.any()
        else:
            assert parameter.grad.abs().sum() > 0, name
    assert all(parameter.grad is None for parameter in clip.parameters())


@torch.inference_mode()
def test_without_deep_tokens_the_prompt_is_its_words(clip: FrozenCLIP) -> None:
    learner = PromptLearner(64, context_length=3, deep_length=0)
    words = clip.embed_text(clip.tokenize(["a scan of"]))[0, 1:4]
    for context in (learner.ctx_pos, learner.ctx_neg):
        context.copy_(words)
    expected = clip.encode_texts(["a scan of object.", "a scan of damaged object."])
    torch.testing.assert_close(learner(clip), torch.nn.functional.normalize(expected, dim=-1))
    assert not learner.compound_prompts_text


def test_deep_tokens_overwrite_their_positions_before_their_blocks() -> None:
    learner = PromptLearner(8, deep_length=2, deep_depth=2, deep_start=1, deep_position=3)
    tokens = torch.randn(2, 10, 8)
    assert learner.overwrite(0, tokens) is tokens
    assert learner.overwrite(3, tokens) is tokens
    for block in (1, 2):
        changed = learner.overwrite(block, tokens)
        assert torch.equal(changed[:, 3:5], learner.compound_prompts_text[block - 1].expand(2, -1, -1))
        assert torch.equal(changed[:, :3], tokens[:, :3])
        assert torch.equal(changed[:, 5:], tokens[:, 5:])
    assert learner.sizes == {
        "prompt_length": 12,
        "deep_length": 2,
        "deep_depth": 2,
        "deep_start": 1,
        "deep_position": 3,
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width": 48, "deep_depth": 2}, "width 48"),
        ({"width": 64}, "reach block 9 of 4"),
        ({"width": 64, "deep_depth": 2, "context_length": 75}, "75 prompt tokens do not fit"),
    ],
)
def test_prompts_that_do_not_fit_the_tower_say_so(
    clip: FrozenCLIP, arguments: dict[str, int], message: str
) -> None:
    with pytest.raises(ModelNotReady, match=message):
        PromptLearner(**arguments)(clip)


def test_published_file_is_read_with_its_unused_parts_ignored(tmp_path: Path) -> None:
    learner = PromptLearner(16, context_length=5, deep_depth=2)
    extras = {
        "token_prefix_pos": torch.zeros(1, 1, 1, 16),
        "compound_prompt_projections.0.weight": torch.zeros(4, 16),
    }
    state = {name: tensor.half() for name, tensor in learner.state_dict().items()}
    torch.save({"prompt_learner": state | extras}, tmp_path / "epoch_15.pth")
    loaded = load_anomalyclip_prompts(tmp_path / "epoch_15.pth")
    assert loaded.sizes == learner.sizes
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, state[name].float())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"state_dict": {}}, "no entry 'prompt_learner'"),
        ([1, 2], "holds a list, not a state dict"),
        ({"prompt_learner": {"ctx_pos": torch.zeros(1, 1, 2, 8)}}, "no complete prompts"),
        (
            {
                "prompt_learner": {
                    "ctx_pos": torch.zeros(1, 1, 2, 8),
                    "ctx_neg": torch.zeros(1, 1, 2, 8),
                    "compound_prompts_text.1": torch.zeros(4, 8),
                }
            },
            "no complete prompts",
        ),
        (
            {"prompt_learner": {"ctx_pos": torch.zeros(1, 1, 2, 8), "ctx_neg": torch.zeros(1, 1, 3, 8)}},
            "do not go together",
        ),
    ],
)
def test_files_without_prompts_say_so(tmp_path: Path, content: Any, message: str) -> None:
    path = tmp_path / "other.pth"
    torch.save(content, path)
    with pytest.raises(ModelNotReady, match=message) as caught:
        load_anomalyclip_prompts(path)
    assert str(path) in str(caught.value)


def test_missing_and_damaged_files_say_so(tmp_path: Path) -> None:
    with pytest.raises(ModelNotReady, match="no such file"):
        load_anomalyclip_prompts(tmp_path / "absent.pth")
    path = tmp_path / "damaged.pth"
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(ModelNotReady, match="damaged"):
        load_anomalyclip_prompts(path)
