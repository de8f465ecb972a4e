from __future__ import annotations

import pytest

from medzsad.errors import ModelNotReady
from medzsad.zoo.catalogue import entries
from medzsad.zoo.loading import clip_weights_of, load_detector
from medzsad.zoo.model_names import nearest_names, unknown_model


@pytest.mark.parametrize(
    ("wanted", "near"),
    [
        ("anomalyclip", ["anomalyclip-visa", "anomalyclip-mvtec", "headclip-from-anomalyclip-visa"]),
        ("anomalyclip-vsia", ["anomalyclip-visa"]),
        ("winclip", ["winclip-vit-l-14-336", "winclip-vit-b-16-plus-240", "winclip-vit-b-16"]),
        ("mini", ["medzsad-mini"]),
        ("medszad-mini", ["medzsad-mini"]),
        ("brigthness", ["brightness"]),
        ("xyzzy", []),
    ],
)
def test_nearest_names(wanted: str, near: list[str]) -> None:
    assert nearest_names(wanted, entries())[: max(1, len(near))] == near
    assert len(nearest_names(wanted, entries())) <= 3


def test_a_method_without_a_model_is_explained() -> None:
    line = unknown_model("HeadCLIP", entries())
    assert "authors' repository" in line
    assert "headclip-from-anomalyclip-visa" in line
    assert "medzsad models list" in line
    assert "\n" not in line


@pytest.mark.parametrize("name", ["runs/headclip", "./x", "~/runs/a", "a.pth", "C:\\runs\\a"])
def test_what_looks_like_a_path_is_said_to_be_missing(name: str) -> None:
    with pytest.raises(ModelNotReady, match="no such file or folder"):
        load_detector(name)


@pytest.mark.parametrize("name", ["medzsad-mini", "brightness"])
def test_clip_weights_for_a_model_without_clip_are_refused(name: str) -> None:
    with pytest.raises(ModelNotReady, match="no CLIP inside"):
        load_detector(name, clip_weights="openai")


def test_of_several_models_those_with_a_clip_get_the_weights() -> None:
    given = clip_weights_of(["medzsad-mini", "anomalyclip-visa", "runs/a"], "openai")
    assert given == {"medzsad-mini": None, "anomalyclip-visa": "openai", "runs/a": "openai"}
    assert clip_weights_of(["medzsad-mini"], "openai") == {"medzsad-mini": "openai"}
