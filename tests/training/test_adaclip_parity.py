"""AdaCLIP's loss and steps against numbers computed by the published training code, with its own recipes.

How ``tests/parity/adaclip_training.safetensors`` was made: the authors' ``AdaCLIP_Trainer.train_one_batch``
(github.com/caoyunkang/AdaCLIP, commit e27ee32) ran on the CPU, in float32, for three steps of one image each.
Its casts of prompts to half precision were left out, and its divisions in place written out, because only
under autocast does the backward pass survive them. CLIP's weights and the learned parameters follow the rule
of ``rule_tensor`` with the seed of the file's metadata (parameters as ``clip_model.<name>``). Images, masks,
labels and class names are those of :func:`batches`. There are as many clusters as patches: k-means has
no choice. ``losses`` are the three returned values, ``move1.<name>`` and ``move3.<name>`` each parameter less
its start after one and after three steps. In float64 the code's moves differ from these by at most 3e-5.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from ignite.engine import Engine, Events
from safetensors import safe_open
from torch import Tensor

from medzsad.detectors.adaclip.model import AdaCLIP
from medzsad.detectors.adaclip.prompts import AdaCLIPAdapter
from medzsad.detectors.adaclip.settings import AdaCLIPSettings
from medzsad.detectors.clip.backbone import FrozenCLIP
from medzsad.training.building import build_optimiser
from medzsad.training.engine import Stepper
from medzsad.training.objectives import Objective
from medzsad.training.processes import Processes
from medzsad.training.recipe import Recipe, read_recipe

ROOT = Path(__file__).parents[2]
FILE = ROOT / "tests" / "parity" / "adaclip_training.safetensors"
RECIPES = ("adaclip_mvtec_colondb", "adaclip_visa_clinicdb")
SIDE = 56
CONFIG: dict[str, Any] = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": SIDE, "layers": 8, "width": 64, "patch_size": 14},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 1, "layers": 6},
}
UNUSED = "text_prompter.static_prompts.0"  # in their code, too: neither moved nor decayed


@pytest.fixture(scope="module")
def expected() -> dict[str, Tensor]:
    with safe_open(FILE, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        tensors["seed"] = torch.tensor(int(file.metadata()["seed"]))
    return tensors


@pytest.fixture(scope="module")
def clip_weights(expected: dict[str, Tensor], rule_tensor: Callable[..., Tensor]) -> dict[str, Tensor]:
    with torch.device("meta"):
        shapes = {name: tuple(t.shape) for name, t in open_clip.CLIP(**CONFIG).state_dict().items()}
    return {name: rule_tensor(name, shape, int(expected["seed"])) for name, shape in shapes.items()}


@pytest.fixture
def detector(
    expected: dict[str, Tensor], clip_weights: dict[str, Tensor], rule_tensor: Callable[..., Tensor]
) -> AdaCLIP:
    published = read_recipe(ROOT / "configs" / "adaclip_visa_clinicdb.yaml").detector
    assert isinstance(published, AdaCLIPSettings)
    settings = replace(published, backbone=CONFIG, clip_weights=None, image_size=SIDE, clusters=16)
    clip = FrozenCLIP.build(CONFIG, clip_weights, text=True, quick_gelu=False, position_mode="bicubic")
    config = settings.resolve(clip)
    shapes = AdaCLIPAdapter.build(config, clip).state_dict()
    learned = {
        name: rule_tensor(f"clip_model.{name}", tuple(t.shape), int(expected["seed"]))
        for name, t in shapes.items()
    }
    return AdaCLIP(clip, config, adapter=AdaCLIPAdapter.build(config, clip, learned)).train()


def batches(seed: int) -> list[dict[str, Any]]:
    """Three batches of one image: anomalous, normal, anomalous."""
    images = np.random.RandomState(seed).standard_normal((3, 3, SIDE, SIDE)).astype(np.float32)
    masks = torch.zeros(3, SIDE, SIDE)
    masks[0, 10:31, 5:25] = 1
    masks[0, 20:40, 30:50] = 1
    masks[2, 3:9] = 1
    return [
        {
            "image": torch.from_numpy(images[i : i + 1]),
            "mask": masks[i : i + 1],
            "label": torch.tensor([label]),
            "class_name": [name],
        }
        for i, (label, name) in enumerate([(1, "brain"), (0, "metal_nut"), (1, "ColonDB")])
    ]


def published_steps(recipe: Recipe, detector: AdaCLIP, seed: int) -> dict[str, Tensor]:
    """Train on :func:`batches` as a run of ``recipe`` does; return what the file holds."""
    start = {name: p.detach().clone() for name, p in detector.adapter.named_parameters()}
    stepper = Stepper(
        recipe,
        detector,
        Objective(detector, recipe.loss, alpha=recipe.focal_alpha),
        build_optimiser(detector, recipe.optimiser),
        processes=Processes(),
        steps=3,
    )
    engine, losses, found = Engine(stepper), [], {}

    @engine.on(Events.ITERATION_COMPLETED)
    def keep(engine: Engine) -> None:
        losses.append(engine.state.output["loss"])
        for name, parameter in detector.adapter.named_parameters():
            found[f"move{engine.state.iteration}.{name}"] = parameter.detach() - start[name]

    engine.run(batches(seed), max_epochs=1)
    return {"losses": torch.tensor(losses), **found}


@pytest.mark.parametrize("name", RECIPES)
def test_losses_and_steps_equal_those_of_the_published_code(
    name: str, detector: AdaCLIP, expected: dict[str, Tensor]
) -> None:
    recipe = read_recipe(ROOT / "configs" / f"{name}.yaml")
    found = published_steps(recipe, detector, int(expected["seed"]))
    torch.testing.assert_close(found["losses"], expected["losses"], rtol=1e-4, atol=0)
    moves = {key: move for key, move in expected.items() if key.startswith("move")}
    assert {key for key in moves if key.startswith("move1.")} == {key for key in found if "move1." in key}
    for key, move in moves.items():
        if key.endswith(UNUSED):
            assert not move.any()
            assert not found[key].any()
        else:
            assert (found[key] - move).norm() <= 1e-3 * move.norm(), key


def test_dice_of_images_is_another_loss(detector: AdaCLIP, expected: dict[str, Tensor]) -> None:
    recipe = read_recipe(ROOT / "configs" / f"{RECIPES[0]}.yaml", ["loss.dice=image"])
    found = published_steps(recipe, detector, int(expected["seed"]))
    assert ((found["losses"] - expected["losses"]).abs() > 1e-3 * expected["losses"]).all()
    key = "move1.patch_token_layer.head.0.weight"
    assert (found[key] - expected[key]).norm() > 0.1 * expected[key].norm()
