"""From a recipe to the detector that trains and to its optimiser."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from medzsad.detectors.checkpoint import Checkpoint
from medzsad.detectors.clip.detector import check_fingerprint
from medzsad.detectors.registry import detector_class
from medzsad.errors import ModelNotReady
from medzsad.training.objectives import Trained
from medzsad.training.recipe import Optimiser, Recipe
from medzsad.zoo.loading import find_clip_weights

GROUPS = ("prompts", "head_weights", "projections")


def build_detector(recipe: Recipe, device: torch.device, *, clip_weights: str | None = None) -> Trained:
    """Return the untrained detector, with its text tower; what it learns is drawn from the recipe's seed.

    Args:
        recipe: the recipe.
        device: where to.
        clip_weights: instead of those that the recipe names.

    Raises:
        ModelNotReady: if the CLIP weights are not on this machine, or settings do not fit.
    """
    weights = check_clip_weights(recipe, clip_weights)
    torch.manual_seed(recipe.seed)
    method: Any = detector_class(recipe.method)  # the settings are its own, which types do not tell
    detector: Trained = method.build(recipe.detector, clip_weights=weights)
    detector.clip.checkpointing = recipe.gradient_checkpointing
    detector.precision = recipe.precision
    return detector.to(device)


def begin_with(detector: Trained, start: Checkpoint) -> None:
    """Give a detector what another one has learned, and the sets that it has seen.

    Raises:
        ModelNotReady: if ``start`` is of another method, other sizes or other CLIP weights.
    """
    if start.method != detector.method:
        raise ModelNotReady(f"a {start.method!r} detector is no start for {detector.method!r}")
    made = "the detector to start from was trained with"
    settings = start.settings
    check_fingerprint(
        settings.get("clip_fingerprint"), detector.clip, settings.get("clip_weights"), made=made
    )
    for name, parameter in trainable(detector).items():
        tensor = start.tensors.get(name)
        if tensor is None or tensor.shape != parameter.shape:
            raise ModelNotReady(f"the detector to start from does not fit the recipe's settings ({name})")
        with torch.no_grad():
            parameter.copy_(tensor)
    detector.seen = tuple(str(name) for name in start.training.get("seen", ()))


def check_clip_weights(recipe: Recipe, clip_weights: str | None = None) -> str | None:
    """Return the CLIP weights of a recipe: a file, an open_clip tag, or None for random ones.

    Nothing is loaded.

    Raises:
        ModelNotReady: if the recipe names weights that are not on this machine; the message says how to get
            them.
    """
    named = recipe.detector.clip_weights if clip_weights is None else clip_weights
    return find_clip_weights(recipe.detector.backbone, named, ask=clip_weights is None)


def trainable(detector: Trained) -> dict[str, nn.Parameter]:
    """Return what training changes, by name, in a fixed order."""
    chosen = {id(parameter) for parameter in detector.trainable_parameters()}
    return {name: p for name, p in detector.named_parameters() if id(p) in chosen}


def group_of(name: str) -> str:
    """Which of :data:`GROUPS` a parameter belongs to."""
    if name.startswith("head_weights."):
        return "head_weights"
    return "projections" if "patch_token_layer" in name or "cls_token_layer" in name else "prompts"


def build_optimiser(detector: Trained, settings: Optimiser) -> torch.optim.Optimizer:
    """Return the optimiser, with a group for each part that there is."""
    groups: list[dict[str, Any]] = []
    for name in GROUPS:
        members = [p for key, p in trainable(detector).items() if group_of(key) == name]
        rate = getattr(settings.group_lr, name)
        rate = settings.lr if rate is None else rate
        if members:
            groups.append({"params": members, "lr": rate, "full_lr": rate, "name": name})
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[settings.name]
    return kind(groups, betas=settings.betas, eps=settings.eps, weight_decay=settings.weight_decay)


def rate_factor(settings: Optimiser, step: int, steps: int) -> float:
    """Return what learning rates are multiplied by at a step (from 0) of ``steps``.

    A function of the step alone: there is no state of a schedule to be kept.
    """
    if step < settings.warmup_steps:
        return (step + 1) / settings.warmup_steps
    if settings.schedule == "constant":
        return 1.0
    progress = (step - settings.warmup_steps) / max(1, steps - settings.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
