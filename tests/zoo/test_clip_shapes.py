from __future__ import annotations

import pytest
import torch
from open_clip import get_model_config

from medzsad.errors import ModelNotReady
from medzsad.zoo.clip_shapes import (
    check_fits,
    guess_architecture,
    shape_of_configuration,
    shape_of_tensors,
)


def tensors_of(architecture: str) -> dict[str, torch.Tensor]:
    """The state dict of an open_clip model, without memory for its numbers."""
    import open_clip

    config = {
        k: v
        for k, v in get_model_config(architecture).items()
        if k in ("embed_dim", "vision_cfg", "text_cfg")
    }
    with torch.device("meta"):
        return open_clip.CLIP(**config).state_dict()


@pytest.mark.parametrize("name", ["ViT-L-14-336", "ViT-B-16", "ViT-B-32", "ViT-B-16-plus-240"])
def test_the_models_of_the_zoo_are_recognised_by_their_shapes(name) -> None:
    tensors = tensors_of(name)
    assert shape_of_tensors(tensors, "x") == shape_of_configuration(get_model_config(name))
    check_fits(tensors, name, "x")
    assert guess_architecture(tensors, True, "x") == name


def test_the_activation_that_no_tensor_shows_is_asked_for() -> None:
    with pytest.raises(ModelNotReady, match=r"ViT-B-32, ViT-B-32-quickgelu; say which with `architecture`"):
        guess_architecture(tensors_of("ViT-B-32"), None, "x")
    assert guess_architecture(tensors_of("ViT-B-16-plus-240"), None, "x") == "ViT-B-16-plus-240"


def test_what_no_model_has_is_described() -> None:
    tensors = tensors_of("ViT-B-32")
    tensors["visual.proj"] = torch.empty(768, 100)
    with pytest.raises(ModelNotReady, match=r"image tower 12 x 768, patches 32, 224 px, shared space 100"):
        guess_architecture(tensors, True, "x")
    with pytest.raises(ModelNotReady, match="not a ViT-B-32"):
        check_fits(tensors, "ViT-B-32", "x")
    del tensors["visual.proj"]
    with pytest.raises(ModelNotReady, match=r"incomplete CLIP: 'visual\.proj' is missing"):
        guess_architecture(tensors, True, "x")


def test_a_file_without_a_text_tower_fits_by_its_image_tower() -> None:
    tensors = {n: t for n, t in tensors_of("ViT-B-16").items() if n.startswith("visual.")}
    check_fits(tensors, "ViT-B-16", "x")
    assert guess_architecture(tensors, True, "x") == "ViT-B-16"
    with pytest.raises(ModelNotReady, match="no text tower"):
        check_fits(tensors, "ViT-B-32", "x")


def test_text_towers_under_their_own_name_are_seen_too() -> None:
    tensors = {n if n.startswith("visual.") else f"text.{n}": t for n, t in tensors_of("ViT-B-16").items()}
    assert guess_architecture(tensors, True, "x") == "ViT-B-16"
