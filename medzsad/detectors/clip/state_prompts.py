"""Texts for "normal" and "abnormal": states of an object, put into photo templates, averaged.

The ensemble is that of WinCLIP (Jeong et al., CVPR 2023), which AdaCLIP (Cao et al., ECCV 2024) took over;
its phrases (:mod:`medzsad.detectors.organs`) can be replaced, e.g. by those of an organ.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from medzsad.detectors.clip.backbone import BlockHook, FrozenCLIP
from medzsad.detectors.organs import ABNORMAL_STATES, NORMAL_STATES, TEMPLATES

Phrases = Sequence[str]
"""Texts with ``{}`` where the class name, or the state of it, goes."""


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


def state_prompts(
    class_name: str,
    *,
    templates: str | Phrases = "adaclip",
    states: tuple[Phrases, Phrases] = (NORMAL_STATES, ABNORMAL_STATES),
) -> tuple[list[str], list[str]]:
    """All texts for an object.

    Args:
        class_name: what the images show, e.g. ``"brain"``; hyphens become spaces, as in AdaCLIP's code.
        templates: a key of :data:`~medzsad.detectors.organs.TEMPLATES`, or templates, each with ``{}``.
        states: normal and abnormal ones, each with ``{}``.

    Returns:
        Normal texts (by default 7 states) and abnormal texts (5 states), each state in every template.

    Raises:
        ValueError: if there are no such templates, the name is empty, or a phrase has no ``{}``.
    """
    if isinstance(templates, str):
        if templates not in TEMPLATES:
            raise ValueError(f"unknown templates {templates!r}; use one of {', '.join(TEMPLATES)}")
        templates = TEMPLATES[templates]
    if not templates or not all(states):
        raise ValueError("there must be at least one template, one normal and one abnormal state")
    for phrase in (*templates, *states[0], *states[1]):
        if "{}" not in phrase:
            raise ValueError(f"the phrase {phrase!r} lacks {{}}, the place of the class name")
    name = class_name.replace("-", " ").strip()
    if not name:
        raise ValueError("the class name is empty; 'object' suits anything")
    normal, abnormal = (
        [template.replace("{}", state.replace("{}", name)) for state in kind for template in templates]
        for kind in states
    )
    return normal, abnormal


def state_tokens(
    clip: FrozenCLIP,
    class_name: str,
    *,
    templates: str | Phrases = "adaclip",
    states: tuple[Phrases, Phrases] = (NORMAL_STATES, ABNORMAL_STATES),
    min_length: int = 1,
) -> StateTokens:
    """Tokenises :func:`state_prompts`.

    Args:
        clip: a CLIP with its text tower.
        class_name, templates, states: see :func:`state_prompts`.
        min_length: keep at least this many tokens, for learned ones to be put in.

    Raises:
        ModelNotReady: if ``clip`` has no text tower, or not CLIP's vocabulary.
        ValueError: as :func:`state_prompts`, or if the name is too long for the text tower.
    """
    normal, abnormal = state_prompts(class_name, templates=templates, states=states)
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
    templates: str | Phrases = "adaclip",
    states: tuple[Phrases, Phrases] = (NORMAL_STATES, ABNORMAL_STATES),
    before_block: BlockHook | None = None,
) -> Tensor:
    """Text features of "normal" and "abnormal".

    Args:
        clip: a CLIP with its text tower.
        class_name, templates, states: see :func:`state_prompts`.
        before_block: hook on the text tower, e.g. to put in learned tokens.

    Returns:
        float32 (2, D), L2-normalised; row 0 normal, row 1 abnormal.

    Raises:
        ModelNotReady: if ``clip`` has no text tower, or not CLIP's vocabulary.
        ValueError: as :func:`state_prompts`.
    """
    tokens = state_tokens(clip, class_name, templates=templates, states=states)
    features = clip.encode_text(clip.embed_text(tokens.ids), tokens.ends, before_block=before_block)
    return pool_states(features, tokens.normal)
