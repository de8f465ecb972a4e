"""What a training writes about itself: adapters, figures, the model card, pictures."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from safetensors.torch import save

from medzsad.detectors.base import AnomalyDetector
from medzsad.detectors.checkpoint import read_checkpoint, save_checkpoint
from medzsad.detectors.protocols import as_trainable
from medzsad.training.card import card_text, training_facts
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
