"""The model card of a trained adapter: what it is, what it has seen, and whose licences that touches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from medzsad.training.recipe import Recipe
from medzsad.training.sources import OpenedSource

NAMES = {"headclip": "HeadCLIP", "anomalyclip": "AnomalyCLIP", "adaclip": "AdaCLIP"}


def training_facts(
    recipe: Recipe,
    training: Sequence[OpenedSource],
    validation: Sequence[OpenedSource],
    *,
    step: int,
    epochs: float,
) -> dict[str, Any]:
    """Return what an adapter tells of its training; JSON-serialisable, without folders.

    Args:
        recipe: of the run.
        training, validation: the data sets.
        step: that the adapter is of.
        epochs: that were done by then.
    """
    from medzsad import __version__

    return {
        "recipe": recipe.without_paths(),
        "name": recipe.name,
        "seen": sorted({source.claimed for source in training}),
        "data": [source.facts(recipe.method) for source in training],
        "chosen_on": sorted({source.claimed for source in validation}),
        "step": step,
        "epochs": round(epochs, 3),
        "seed": recipe.seed,
        "medzsad_version": __version__,
    }


def card_text(facts: dict[str, Any], validations: Sequence[dict[str, Any]], best_step: int) -> str:
    """Return the card, as Markdown.

    Args:
        facts: from :func:`training_facts`.
        validations: what was measured in the run, each with ``step`` and ``validation``.
        best_step: the step of the adapter.
    """
    recipe = facts["recipe"]
    settings = recipe["detector"]
    backbone = settings["backbone"] if isinstance(settings["backbone"], str) else "a custom ViT"
    weights = settings["clip_weights"] or "random, kept in clip.safetensors"
    optimiser = recipe["optimiser"]
    lines = [
        f"# {facts['name']}",
        "",
        f"{NAMES[recipe['method']]} adapter for a frozen CLIP, trained with medzsad "
        f"{facts['medzsad_version']}. Research software, not a medical device.",
        "",
        f"- backbone: {backbone}, weights: {weights}, input {settings['image_size']} px",
        f"- trained: {facts['epochs']:g} epochs, {facts['step']} steps of "
        f"{recipe['batch_size'] * recipe['accumulate']} images per process, seed {facts['seed']}",
        f"- optimiser: {optimiser['name']}, learning rate {optimiser['lr']:g}, "
        f"betas {', '.join(f'{beta:g}' for beta in optimiser['betas'])}, "
        f"weight decay {optimiser['weight_decay']:g}",
        f"- precision: {recipe['precision']}",
        "- the whole recipe: recipe.yaml",
        "",
        "## Data sets that it has seen",
        "",
        "Results on these sets are not zero-shot, and `medzsad evaluate` marks them so.",
        "",
        "| data set | split | images | anomalous | licence of the data |",
        "|---|---|---|---|---|",
    ]
    for one in facts["data"]:
        count = (
            f"{one['images']} slices of {one['volumes']} volumes" if "volumes" in one else f"{one['images']}"
        )
        lines.append(
            f"| {one['dataset']} ({one['title']}) | {one['split']} | {count} | {one['anomalous']} "
            f"| {one['licence']} |"
        )
    lines += ["", _licence_note(facts["data"])]
    if facts["chosen_on"]:
        lines += [
            "",
            f"The step was chosen on {', '.join(facts['chosen_on'])}: unless listed above these were not "
            "trained on, but they are not quite unseen either.",
        ]
    found = next((one for one in validations if one["step"] == best_step), None)
    if found:
        lines += [
            "",
            "## Validation",
            "",
            f"At step {best_step}, in percent, at the detector's own size:",
            "",
        ]
        names = list(dict.fromkeys(name for figures in found["validation"].values() for name in figures))
        lines += [
            "| data set | " + " | ".join(name.replace("_", " ") for name in names) + " |",
            "|---" * (len(names) + 1) + "|",
        ]
        for dataset, figures in found["validation"].items():
            cells = [_percent(figures.get(name)) for name in names]
            lines.append(f"| {dataset} | " + " | ".join(cells) + " |")
    lines += ["", "## Use", "", "```python", 'medzsad.predict("SCAN", detector="RUN_FOLDER")', "```", ""]
    return "\n".join(lines)


def _licence_note(data: Sequence[dict[str, Any]]) -> str:
    unknown = [one["dataset"] for one in data if one["licence"].startswith("unknown")]
    limited = [
        one["dataset"]
        for one in data
        if "NC" in one["licence"].split("-")
        or any(word in one["licence"] for word in ("BY-NC", "no commercial", "research"))
    ]
    parts = []
    if limited:
        parts.append(f"The terms of {', '.join(limited)} exclude or limit commercial use")
    if unknown:
        parts.append(
            f"{', '.join(unknown)} {'states' if len(unknown) == 1 else 'state'} no licence that we know of"
        )
    if not parts:
        return "No terms are known that limit the use of what was trained on these; read them all the same."
    return "; ".join(parts) + ": read them before you use or pass on this adapter."


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
