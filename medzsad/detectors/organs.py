"""What the images show, in words: class name, normal and abnormal states, templates.

Without an organ the phrases are the published object-agnostic ones of WinCLIP (Jeong et al., CVPR 2023), part
of which AdaCLIP (Cao et al., ECCV 2024) took over. Those of the organs, in ``organs.yaml``, are our choice:
common radiological wording, neither published nor tuned on data. Reading them imports nothing heavy.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from medzsad.errors import BadInput

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


class Vocabulary(NamedTuple):
    """Words for one kind of image. ``{}`` marks the place of the class name, or in templates of its state.

    Attributes:
        class_name: what an image shows, e.g. ``"brain MRI"``.
        normal: states of it, e.g. ``"healthy {}"``.
        abnormal: states of it, e.g. ``"{} with a tumour"``.
        templates: sentences around a state, e.g. ``"a photo of a {}."``.
    """

    class_name: str
    normal: tuple[str, ...]
    abnormal: tuple[str, ...]
    templates: tuple[str, ...]

    @property
    def states(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The normal and the abnormal states."""
        return self.normal, self.abnormal


OBJECT = Vocabulary("object", NORMAL_STATES, ABNORMAL_STATES, TEMPLATES["winclip"])
"""The published words, which suit any image."""


@cache
def organ_names() -> tuple[str, ...]:
    """All names that :func:`vocabulary` knows: ``"organ"``, or ``"organ/modality"``."""
    return tuple(_catalogue()["organs"])


@cache
def vocabulary(organ: str | None = None) -> Vocabulary:
    """Return the words for an organ.

    Args:
        organ: a name such as ``"brain"``, or with a modality such as ``"brain/mr"``; None for any object.

    Raises:
        BadInput: if there is no such name; the message lists all. No other modality is taken instead.
    """
    if organ is None:
        return OBJECT
    name = organ.strip().lower()
    if name not in organ_names():
        raise BadInput(f"unknown organ {organ!r}; use one of: {', '.join(organ_names())}")
    catalogue = _catalogue()
    entry, common = catalogue["organs"][name], catalogue["common"]
    return Vocabulary(
        entry["class_name"],
        (*common["normal"], *entry.get("normal", ())),
        (*common["abnormal"], *entry["abnormal"]),
        tuple(catalogue["templates"][entry.get("templates", "scan")]),
    )


def name_of(organ: str | None, class_name: str | None) -> str | None:
    """Return what ``--organ`` and ``--class-name`` together have texts call the images.

    None where neither is given.

    Raises:
        BadInput: if the organ is unknown.
    """
    words = None if organ is None else vocabulary(organ)
    return words.class_name if words is not None and class_name is None else class_name


@cache
def _catalogue() -> dict[str, Any]:
    import yaml

    return yaml.safe_load((Path(__file__).parent / "organs.yaml").read_text(encoding="utf-8"))
