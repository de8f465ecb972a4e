"""What a training writes about itself: adapters, figures, pictures, and the model card.

The card says what an adapter is, what it has seen, and whose licences that touches.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.torch import save

from medzsad.detectors.base import AnomalyDetector
from medzsad.detectors.checkpoint import read_checkpoint, save_checkpoint
from medzsad.detectors.protocols import as_trainable
from medzsad.training.curves import draw_curves
from medzsad.training.recipe import Recipe, file_name
from medzsad.training.run_folder import RunFolder, write_bytes
from medzsad.training.sources import OpenedSource
from medzsad.training.state import Progress

PICTURE_SECONDS = 60.0  # pictures are drawn at most this often, and at the end


class Reporter:
    """Writes a run's files, in the first process.

    Args:
        folder: of the run.
        recipe: of the run.
        detector: that trains.
        training, validation: the data sets.
        steps_per_epoch, steps: of the training.
    """

    def __init__(
        self,
        folder: RunFolder,
        recipe: Recipe,
        detector: AnomalyDetector,
        training: Sequence[OpenedSource],
        validation: Sequence[OpenedSource],
        *,
        steps_per_epoch: int,
        steps: int,
    ) -> None:
        self.folder = folder
        self.recipe = recipe
        self.detector = detector
        self.training = training
        self.validation = validation
        self.steps_per_epoch = steps_per_epoch
        self.steps = steps
        self._drawn = time.perf_counter()

    def save_adapter(self, step: int, path: Path | None = None) -> None:
        """Write what is learned by ``step``, with how it came about; by default as the run's adapter."""
        checkpoint = self.detector.to_checkpoint()
        named = file_name(checkpoint.settings.get("clip_weights"))
        settings = {**checkpoint.settings, "clip_weights": named}
        checkpoint = replace(checkpoint, settings=settings, training=self._facts(step))
        save_checkpoint(checkpoint, self.folder.adapter if path is None else path)

    def keep_epoch(self, epoch: int, step: int) -> None:
        """Write an epoch's adapter, and delete those of epochs before the last ``recipe.keep``."""
        if self.recipe.keep:
            self.save_adapter(step, self.folder.epochs / f"epoch-{epoch:04d}.safetensors")
            for path in sorted(self.folder.epochs.glob("epoch-*.safetensors"))[: -self.recipe.keep]:
                path.unlink()

    def keep_random_clip(self) -> None:
        """Random CLIP weights cannot be had elsewhere, and ``--model RUN`` needs them."""
        if self.recipe.detector.clip_weights is None:
            tensors = as_trainable(self.detector).clip.state_dict()
            write_bytes(
                self.folder.clip, save({n: t.detach().cpu().contiguous() for n, t in tensors.items()})
            )

    def write(self, progress: Progress) -> None:
        """Write figures and model card; now and then, and at the end, pictures."""
        finished = progress.step >= self.steps
        content = {
            "finished": finished,
            "step": progress.step,
            "steps": self.steps,
            "epochs": round(progress.step / self.steps_per_epoch, 3),
            "best_step": progress.best_step,
            "best": progress.best,
            "metric": self.recipe.validation.metric if self.validation else None,
            "validations": progress.validations,
            "seconds": progress.seconds,
        }
        self.folder.write_json(self.folder.metrics, content)
        if progress.best_step:
            facts = self._facts(progress.best_step)
            card = card_text(facts, progress.validations, progress.best_step)
            self.folder.write(self.folder.card, card)
        if finished or time.perf_counter() - self._drawn > PICTURE_SECONDS:
            self.draw()

    def draw(self) -> None:
        """Draw the curves, and what of the best adapter can be seen: HeadCLIP's head weights."""
        self._drawn = time.perf_counter()
        draw_curves(self.folder.read_log(), self.folder.curves, title=self.recipe.name)
        if self.folder.adapter.is_file():
            picture = as_trainable(self.detector).picture(read_checkpoint(self.folder.adapter))
            if picture is not None:
                self.folder.write_picture(self.folder.head_weights, picture)

    def _facts(self, step: int) -> dict[str, object]:
        epochs = step / self.steps_per_epoch
        facts = training_facts(self.recipe, self.training, self.validation, step=step, epochs=epochs)
        # What the training started from has seen, this adapter has seen, too.
        return {**facts, "seen": sorted({*facts["seen"], *self.detector.seen})}


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
