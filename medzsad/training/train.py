"""The training of a detector: a recipe in, a run folder out."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypedDict

import torch
from ignite.engine import Engine
from monai.engines import SupervisedTrainer
from torch.utils.data import DataLoader

from medzsad.detectors.checkpoint import Checkpoint
from medzsad.detectors.devices import float32_products, resolve_device, resolve_precision
from medzsad.training.building import begin_with, build_detector, build_optimiser, check_clip_weights
from medzsad.training.engine import Checkpoints, StepLog, Stepper, Validation
from medzsad.training.frozen_features import FeatureCache
from medzsad.training.objectives import Objective
from medzsad.training.processes import Processes, determinism, device_of, joined, quiet_worker, stop_signals
from medzsad.training.recipe import Recipe
from medzsad.training.reporting import Reporter
from medzsad.training.run_folder import RunFolder, environment
from medzsad.training.sources import describe, open_all
from medzsad.training.state import Progress, load_state, save_state
from medzsad.training.training_set import EpochPlan, InputFormat, StepBatches, TrainingSet
from medzsad.training.validation import Validator, check_metric

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingResult:
    """How a training ended.

    Attributes:
        folder: of the run.
        progress: how far it is, and what validation found.
        steps: of the whole training.
        finished: False if it was stopped; the same call goes on with it.
        is_first: whether this is the process that tells it; of several, one does.
    """

    folder: Path
    progress: Progress
    steps: int
    finished: bool
    is_first: bool = True


def train(
    recipe: Recipe,
    folder: str | os.PathLike[str],
    *,
    device: str = "auto",
    fresh: bool = False,
    clip_weights: str | None = None,
    start: Checkpoint | None = None,
) -> TrainingResult:
    """Trains a detector, or goes on with a training that was stopped.

    Under ``torchrun`` all processes train together. On SIGINT or SIGTERM the step is finished, the state is
    stored, and the function returns. How it goes is logged, in the first process.

    >>> from medzsad.training.recipe import read_recipe
    >>> train(read_recipe("configs/smoke.yaml"), "runs/smoke")            # doctest: +SKIP

    Args:
        recipe: what to do.
        folder: of the run; see :class:`~medzsad.training.run_folder.RunFolder`.
        device: ``"auto"``, or a torch device.
        fresh: start over, whatever the folder holds of a run.
        clip_weights: CLIP weights instead of those that the recipe names.
        start: what another detector of the recipe's method and settings has learned, to train on from there
            instead of from untrained prompts.

    Raises:
        BadInput: if the data or the folder cannot be used, or the loss is no longer a number.
        ModelNotReady: if the CLIP weights are missing, or settings do not fit them.
        OutputNotWritable: if files cannot be written.
    """
    with joined(device) as processes, stop_signals() as asked, determinism(recipe.deterministic):
        run = _Run(recipe, RunFolder(folder), processes, device, fresh, clip_weights, start, asked)
        return run.go()


class _Belongs(TypedDict):
    """Which run a state is of."""

    digest: str
    processes: int


class _Run:
    """One call of :func:`train`."""

    def __init__(
        self,
        recipe: Recipe,
        folder: RunFolder,
        processes: Processes,
        device: str,
        fresh: bool,
        clip_weights: str | None,
        start: Checkpoint | None,
        asked: Callable[[], bool],
    ) -> None:
        self.recipe, self.folder, self.processes = recipe, folder, processes
        self.device = resolve_device(device_of(device, processes))
        resolve_precision(recipe.precision, self.device)
        check_clip_weights(recipe, clip_weights)  # before volumes are cut, which may take long
        with processes.first_alone():
            if processes.is_first:
                folder.check(recipe, fresh=fresh)
            self.training, self.validation = open_all(recipe, folder.data)
            if self.validation:
                check_metric(self.validation, recipe.validation.metric)
        self._tell_data()
        self.detector = build_detector(recipe, self.device, clip_weights=clip_weights)
        if start is not None:
            begin_with(self.detector, start)
        going_on = None
        with processes.first_alone():
            if processes.is_first:  # now that data and detector are known to be usable
                going_on = folder.prepare(recipe, fresh=fresh)
                folder.write_json(folder.environment, environment(recipe, self.device, processes))
        self.going_on = bool(processes.gather(going_on)[0])
        self.inputs = InputFormat.of(self.detector)
        self.images = TrainingSet(
            self.training, self.inputs, augmentation=recipe.augmentation, seed=recipe.seed
        )
        sizes = [len(opened.samples) for opened in self.training]
        plan = EpochPlan(sizes, [opened.source.weight for opened in self.training], recipe.seed)
        self.per_process = recipe.batch_size * recipe.accumulate
        self.batches = StepBatches(
            plan,
            self.per_process,
            recipe.epochs,
            rank=processes.rank,
            world_size=processes.world_size,
        )
        self.optimiser = build_optimiser(self.detector, recipe.optimiser)
        self.stepper = Stepper(
            recipe,
            self.detector,
            Objective(self.detector, recipe.loss, alpha=recipe.focal_alpha),
            self.optimiser,
            processes=processes,
            steps=self.batches.steps,
            features=self._feature_cache(),
            wants_to_stop=asked,
        )
        self.reporter = Reporter(
            folder,
            recipe,
            self.detector,
            self.training,
            self.validation,
            steps_per_epoch=self.batches.steps_per_epoch,
            steps=self.batches.steps,
        )
        self.progress = Progress()
        self.belongs: _Belongs = {"digest": recipe.digest(), "processes": processes.world_size}

    def go(self) -> TrainingResult:
        """Trains."""
        first, steps = self.processes.is_first, self.batches.steps
        if self.going_on:
            scaler = self.stepper.scaler
            self.progress = load_state(
                self.folder.state, self.detector, self.optimiser, scaler, **self.belongs
            )
            if self.progress.step < steps:
                self._tell(f"going on after step {self.progress.step} of {steps}")
        if self.progress.step >= steps:
            self._tell(f"{self.folder.path}: this training is finished already")
            if first and not self.folder.curves.is_file():  # killed while it was drawn
                self.reporter.write(self.progress)
            return TrainingResult(self.folder.path, self.progress, steps, True, first)
        if first:
            self.folder.cut_log(self.progress.step)
            if not self.going_on:
                self.reporter.keep_random_clip()
        self.batches.start = self.progress.step
        self.begin = time.perf_counter() - self.progress.seconds
        trainer = self._trainer()
        trainer.state.iteration = self.progress.step
        trainer.state.epoch = self.progress.step // self.batches.steps_per_epoch
        with float32_products(self.recipe.precision, self.device):
            trainer.run()
        if first and self.progress.step < steps:
            self.reporter.write(self.progress)
            self.reporter.draw()
        self.processes.wait()
        finished = self.progress.step >= steps
        return TrainingResult(self.folder.path, self.progress, steps, finished, first)

    def _trainer(self) -> SupervisedTrainer:
        recipe = self.recipe
        loader = DataLoader(
            self.images,
            batch_sampler=self.batches,
            num_workers=recipe.workers,
            worker_init_fn=quiet_worker,
            pin_memory=self.device.type == "cuda",
            # Every iteration over a loader draws a seed, and would move torch's own generator on.
            generator=torch.Generator().manual_seed(recipe.seed),
        )
        trainer = SupervisedTrainer(
            device=self.device,
            max_epochs=recipe.epochs,
            train_data_loader=loader,
            network=self.detector,
            optimizer=self.optimiser,
            loss_function=self.stepper.objective,
            epoch_length=self.batches.steps_per_epoch,
            iteration_update=self.stepper,
            train_handlers=self._handlers(),
            decollate=False,
        )
        trainer.logger.setLevel(logging.CRITICAL)  # errors are told once, by whoever catches them
        return trainer

    def _handlers(self) -> list[Any]:
        """In the order in which they follow a step: what a state includes must be there when it is stored."""
        recipe, first = self.recipe, self.processes.is_first
        handlers: list[Any] = []
        if first:
            images = self.per_process * self.processes.world_size
            handlers.append(StepLog(self.folder, every=recipe.log_every, images=images))
        if self.validation:
            size = recipe.validation.batch_size
            validator = Validator(self.validation, self.inputs, batch_size=size, processes=self.processes)
            handlers.append(
                Validation(
                    lambda: validator(self.detector),
                    metric=recipe.validation.metric,
                    every=recipe.validation.every,
                    progress=self.progress,
                    on_best=self._save_best,
                    log=self.folder if first else None,
                )
            )
        if first:
            handlers += _tensorboard(self.folder)
        return [*handlers, Checkpoints(self._store, every=recipe.checkpoint_every)]

    def _save_best(self, engine: Engine) -> None:
        if self.processes.is_first:
            self.reporter.save_adapter(engine.state.iteration)

    def _store(self, engine: Engine) -> None:
        progress = self.progress
        progress.step = engine.state.iteration
        progress.seconds = round(time.perf_counter() - self.begin, 3)
        if not self.processes.is_first:
            return
        at_epoch_end = progress.step % self.batches.steps_per_epoch == 0
        if at_epoch_end:
            if progress.best is None:  # nothing was measured yet: the newest is the best there is
                progress.best_step = progress.step
                self.reporter.save_adapter(progress.step)
            self.reporter.keep_epoch(engine.state.epoch, progress.step)
        scaler = self.stepper.scaler
        save_state(self.folder.state, progress, self.detector, self.optimiser, scaler, **self.belongs)
        if at_epoch_end:
            self.reporter.write(progress)

    def _feature_cache(self) -> FeatureCache | None:
        recipe = self.recipe
        if not recipe.cache_features:
            return None
        rates = [recipe.augmentation.mosaic if s.mosaic is None else s.mosaic for s in recipe.data]
        augmentation = replace(recipe.augmentation, mosaic=max(rates))
        cache = FeatureCache(self.folder.features, self.detector, augmentation=augmentation)
        if self.processes.is_first:
            cache.check_room(len(self.images) * (augmentation.variants or 1))
        return cache

    def _tell(self, line: str) -> None:
        if self.processes.is_first:
            logger.info(line)

    def _tell_data(self) -> None:
        for word, sources in (("training", self.training), ("validation", self.validation)):
            for opened in sources:
                self._tell(f"{word}: {describe(opened)}")
                for note in opened.notes:
                    self._tell(f"  {note}")


def _tensorboard(folder: RunFolder) -> list[Any]:
    """MONAI's handler, if TensorBoard is installed."""
    try:
        import torch.utils.tensorboard  # noqa: F401 - whether it is installed
    except ImportError:
        return []
    from monai.handlers import TensorBoardStatsHandler

    def losses(output: dict[str, float]) -> dict[str, float]:
        return {name: value for name, value in output.items() if name != "stop"}

    return [TensorBoardStatsHandler(log_dir=str(folder.tensorboard), output_transform=losses)]
