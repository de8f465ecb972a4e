"""Texts for "normal" and "abnormal": states of an object, put into photo templates, averaged.

The ensemble is that of WinCLIP (Jeong et al., CVPR 2023), which AdaCLIP (Cao et al., ECCV 2024) took over.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from medzsad.detectors.clip.backbone import BlockHook, FrozenCLIP

NORMAL_STATES = (
    "{}",
    "flawless {}",
    "perfect {}",
    "unblemished {}",
    "{} without flaw",
    "{} without defect",
    "{} without damage",
)
ABNORMAL_STATES = ("damaged {}", "broken {}", "{} with flaw", "{} with defect", "{} with damage")

_ADACLIP = (
    "a bad photo of a {}.",
    "a low resolution photo of the {}.",
    "a bad photo of the {}.",
    "a cropped photo of the {}.",
)
TEMPLATES: dict[str, tuple[str, ...]] = {
    "adaclip": _ADACLIP,
    "winclip": (
        *_ADACLIP,
        "a bright photo of a {}.",
        "a dark photo of the {}.",
        "a photo of my {}.",
        "a photo of the cool {}.",
        "a close-up photo of a {}.",
        "a black and white photo of the {}.",
        "a bright photo of the {}.",
        "a cropped photo of a {}.",
        "a jpeg corrupted photo of a {}.",
        "a blurry photo of the {}.",
        "a photo of the {}.",
        "a good photo of the {}.",
        "a photo of one {}.",
        "a close-up photo of the {}.",
        "a photo of a {}.",
        "a low resolution photo of a {}.",
        "a photo of a large {}.",
        "a blurry photo of a {}.",
        "a jpeg corrupted photo of the {}.",
        "a good photo of a {}.",
        "a photo of the small {}.",
        "a photo of the large {}.",
        "a black and white photo of a {}.",
        "a dark photo of a {}.",
        "a photo of a cool {}.",
        "a photo of a small {}.",
        "there is a {} in the scene.",
        "there is the {} in the scene.",
        "this is a {} in the scene.",
        "this is the {} in the scene.",
        "this is one {} in the scene.",
    ),
}
"""The four of AdaCLIP's published code, and the 35 that the field's WinCLIP-style ensembles use."""


class StateTokens(NamedTuple):
    """Tokenised texts.

    Attributes:
        ids: int64 (P, T), the normal texts first; T is as short as the texts allow.
        ends: int64 (P,), the position at which each text's feature is read.
        normal: how many of the P are normal.
    """

    ids: Tensor
    ends: Tensor
    normal: int


def state_prompts(class_name: str, *, templates: str = "adaclip") -> tuple[list[str], list[str]]:
    """All texts for an object.

    Args:
        class_name: what the images show, e.g. ``"brain"``; hyphens become spaces, as in AdaCLIP's code.
        templates: a key of :data:`TEMPLATES`.

    Returns:
        Normal texts (7 states) and abnormal texts (5 states), each state in every template.

    Raises:
        ValueError: if there are no such templates, or the name is empty.
    """
    if templates not in TEMPLATES:
        raise ValueError(f"unknown templates {templates!r}; use one of {', '.join(TEMPLATES)}")
    name = class_name.replace("-", " ").strip()
    if not name:
        raise ValueError("the class name is empty; 'object' suits anything")
    normal, abnormal = (
        [
            template.replace("{}", state.replace("{}", name))
            for state in states
            for template in TEMPLATES[templates]
        ]
        for states in (NORMAL_STATES, ABNORMAL_STATES)
    )
    return normal, abnormal


def state_tokens(
    clip: FrozenCLIP, class_name: str, *, templates: str = "adaclip", min_length: int = 1
) -> StateTokens:
    """Tokenises :func:`state_prompts`.

    Args:
        clip: a CLIP with its text tower.
        class_name, templates: see :func:`state_prompts`.
        min_length: keep at least this many tokens, for learned ones to be put in.

    Raises:
        ModelNotReady: if ``clip`` has no text tower, or not CLIP's vocabulary.
        ValueError: as :func:`state_prompts`, or if the name is too long for the text tower.
    """
    normal, abnormal = state_prompts(class_name, templates=templates)
    ids = clip.tokenize(normal + abnormal)
    if (ids[:, -1] != 0).any():  # cut off at the end
        raise ValueError(f"the class name {class_name[:40]!r}... is too long for {clip.name}'s text tower")
    ends = clip.text_ends(ids)
    if clip.causal_text:
        # No token reaches one before it, so what follows the last one read costs time and changes nothing.
        ids = ids[:, : max(int(ends.max()) + 1, min_length)]
    return StateTokens(ids, ends, len(normal))


def pool_states(features: Tensor, normal: int) -> Tensor:
    """Means of L2-normalised text features, L2-normalised.

    Args:
        features: (..., P, D), of any length, the ``normal`` normal ones first.
        normal: how many are normal.

    Returns:
        float32 (..., 2, D); row 0 normal, row 1 abnormal.
    """
    features = F.normalize(features.float(), dim=-1)
    means = torch.stack([features[..., :normal, :].mean(-2), features[..., normal:, :].mean(-2)], -2)
    return F.normalize(means, dim=-1)


def encode_states(
    clip: FrozenCLIP,
    class_name: str = "object",
    *,
    templates: str = "adaclip",
    before_block: BlockHook | None = None,
) -> Tensor:
    """Text features of "normal" and "abnormal".

    Args:
        clip: a CLIP with its text tower.
        class_name, templates: see :func:`state_prompts`.
        before_block: hook on the text tower, e.g. to put in learned tokens.

    Returns:
        float32 (2, D), L2-normalised; row 0 normal, row 1 abnormal.

    Raises:
        ModelNotReady: if ``clip`` has no text tower, or not CLIP's vocabulary.
        ValueError: as :func:`state_prompts`.
    """
    tokens = state_tokens(clip, class_name, templates=templates)
    features = clip.encode_text(clip.embed_text(tokens.ids), tokens.ends, before_block=before_block)
    return pool_states(features, tokens.normal)
