"""Texts of states in templates, and their averaged features, against open_clip's own text tower."""

from __future__ import annotations

from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F

from medzsad.detectors.clip.backbone import FrozenCLIP
from medzsad.detectors.clip.state_prompts import (
    TEMPLATES,
    encode_states,
    pool_states,
    state_prompts,
    state_tokens,
)
from medzsad.errors import ModelNotReady

CONFIG: dict[str, Any] = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 28, "layers": 1, "width": 64, "patch_size": 14},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 3},
}
STATES = (("healthy {}", "{} without lesion"), ("{} with a tumour",))


@pytest.fixture(scope="module")
def clip() -> FrozenCLIP:
    return FrozenCLIP.build(CONFIG, None, text=True)


def test_every_state_is_put_into_every_template() -> None:
    normal, abnormal = state_prompts("transistor-chip")
    assert (len(normal), len(abnormal)) == (7 * 4, 5 * 4)
    assert normal[0] == "a bad photo of a transistor chip."
    assert abnormal[-1] == "a cropped photo of the transistor chip with damage."
    assert len(TEMPLATES["winclip"]) == len(set(TEMPLATES["winclip"])) == 35
    normal, abnormal = state_prompts("object", templates="winclip")
    assert (len(normal), len(abnormal)) == (7 * 35, 5 * 35)


def test_states_and_templates_can_be_given() -> None:
    normal, abnormal = state_prompts("brain", templates=("a {}.", "my {}."), states=STATES)
    assert normal == [
        "a healthy brain.",
        "my healthy brain.",
        "a brain without lesion.",
        "my brain without lesion.",
    ]
    assert abnormal == ["a brain with a tumour.", "my brain with a tumour."]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"class_name": " - "}, "empty"),
        ({"class_name": "brain", "templates": "imagenet"}, "unknown templates 'imagenet'"),
        ({"class_name": "brain", "templates": ()}, "at least one"),
        ({"class_name": "brain", "states": (("{}",), ())}, "at least one"),
        ({"class_name": "brain", "states": (("healthy",), ("{} ill",))}, "'healthy' lacks {}"),
    ],
)
def test_phrases_that_cannot_be_used_say_so(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        state_prompts(**arguments)


@torch.no_grad()
def test_features_are_means_of_what_open_clip_encodes(clip: FrozenCLIP) -> None:
    plain = open_clip.CLIP(**CONFIG).eval()
    plain.load_state_dict(
        {n.removeprefix("text."): t for n, t in clip.state_dict().items()}
        | {"logit_scale": plain.logit_scale}
    )
    templates = ("a {}.", "a photo of the {}.")
    normal, abnormal = state_prompts("brain", templates=templates, states=STATES)
    expected = []
    for texts in (normal, abnormal):
        features = F.normalize(plain.encode_text(open_clip.tokenize(texts)), dim=-1)
        expected.append(F.normalize(features.mean(0), dim=-1))
    found = encode_states(clip, "brain", templates=templates, states=STATES)
    torch.testing.assert_close(found, torch.stack(expected), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(found, encode_states(clip, "brain", templates=templates), atol=1e-3)


def test_pooling_ignores_the_lengths_of_features() -> None:
    features = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(1))
    longer = features * torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]).view(5, 1)
    torch.testing.assert_close(pool_states(features, 3), pool_states(longer, 3))
    assert pool_states(features, 3).shape == (2, 2, 8)


def test_tokens_are_as_short_as_the_texts_allow(clip: FrozenCLIP) -> None:
    tokens = state_tokens(clip, "brain", templates=("{}",), states=STATES)
    assert tokens.ids.shape == (3, 6)  # start, "brain", "with", "a", "tumour", end
    assert tokens.normal == 2
    assert state_tokens(clip, "brain", templates=("{}",), states=STATES, min_length=20).ids.shape == (3, 20)


def test_texts_that_do_not_fit_say_so(clip: FrozenCLIP) -> None:
    with pytest.raises(ValueError, match="too long"):
        encode_states(clip, "brain " * 80)
    with pytest.raises(ModelNotReady, match="without its text tower"):
        encode_states(FrozenCLIP.build(CONFIG, None), "brain")
