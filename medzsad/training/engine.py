"""One optimiser step, and what happens between the steps: the parts of MONAI's engine.

A step accumulates, in mixed precision, averages over processes and clips. Between steps come lines,
checkpoints and validation.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from ignite.engine import Engine, Events

from medzsad.detectors.base import DTYPES, AnomalyDetector
from medzsad.errors import BadInput, certain
from medzsad.training.building import rate_factor, trainable
from medzsad.training.frozen_features import FeatureCache
from medzsad.training.objectives import Objective, TrainingBatch
from medzsad.training.processes import Processes
from medzsad.training.recipe import Recipe
from medzsad.training.run_folder import RunFolder
from medzsad.training.state import Progress
from medzsad.training.validation import Figures, chosen_figure

PARTS = ("loss", "image_loss", "focal", "dice_abnormal", "dice_normal")


class Stepper:
    """The ``iteration_update`` of a :class:`monai.engines.SupervisedTrainer`.

    An iteration of the engine is a step of the optimiser: its batch is cut into ``recipe.accumulate`` parts,
    which go through the detector one after another.

    Args:
        recipe: precision, accumulation, learning rates, clipping.
        detector, objective, optimiser: what trains.
        processes: which train together.
        steps: of the whole training.
        features: where frozen features are kept; None to compute them each time.
        wants_to_stop: whether this process was asked to stop.

    Attributes:
        scaler: of the loss in fp16; it does nothing in other precisions.
    """

    def __init__(
        self,
        recipe: Recipe,
        detector: AnomalyDetector,
        objective: Objective,
        optimiser: torch.optim.Optimizer,
        *,
        processes: Processes,
        steps: int,
        features: FeatureCache | None = None,
        wants_to_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.recipe = recipe
        self.detector = detector
        self.objective = objective
        self.optimiser = optimiser
        self.processes = processes
        self.steps = steps
        self.features = features
        self.wants_to_stop = wants_to_stop
        self.parameters = list(trainable(detector).values())
        self.scaler = torch.amp.GradScaler(detector.device.type, enabled=recipe.precision == "fp16")

    def __call__(self, engine: Engine, batch: dict[str, Any]) -> dict[str, float]:
        """Make a step.

        Returns:
            The losses of :class:`~medzsad.training.objectives.Objective`, means over the step and over all
            processes; ``gradient``, the gradient's norm before clipping; ``lr``, the highest rate; and
            ``stop``, above 0 if any process was asked to stop.

        Raises:
            BadInput: if the loss is no longer a number.
        """
        step = engine.state.iteration - 1
        self.optimiser.zero_grad(set_to_none=True)
        totals = dict.fromkeys(PARTS, 0.0)
        for part in self._parts(batch):
            losses = self._losses(part)
            self.scaler.scale(losses["loss"] / self.recipe.accumulate).backward()
            values = torch.stack([losses[name].detach() for name in PARTS]).tolist()  # one wait for a GPU
            for name, value in zip(PARTS, values, strict=True):
                totals[name] += value / self.recipe.accumulate
        totals["stop"] = float(self.wants_to_stop())
        totals = self.processes.mean(totals, self.detector.device)
        if not abs(totals["loss"]) < float("inf"):
            raise BadInput(
                f"the loss of step {step + 1} is not a number; lower optimiser.lr, set optimiser.clip_norm, "
                "or use precision fp32"
            )
        self.processes.average_gradients(self.parameters)
        self.scaler.unscale_(self.optimiser)
        limit = self.recipe.optimiser.clip_norm
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, float("inf") if limit is None else limit)
        factor = rate_factor(self.recipe.optimiser, step, self.steps)
        for group in self.optimiser.param_groups:
            group["lr"] = group["full_lr"] * factor
        self.scaler.step(self.optimiser)
        self.scaler.update()
        return {
            **totals,
            "gradient": float(norm),
            "lr": max(group["lr"] for group in self.optimiser.param_groups),
        }

    def _losses(self, part: dict[str, Any]) -> dict[str, torch.Tensor]:
        device = self.detector.device
        images = part["image"].to(device, non_blocking=True)
        inputs = {**part, "image": images}
        if self.features is not None:
            inputs["frozen"] = self.features.batch(images)
        dtype = DTYPES.get(self.recipe.precision)
        with torch.autocast(device.type, dtype, enabled=dtype is not None):
            return self.objective(cast(TrainingBatch, inputs))

    def _parts(self, batch: dict[str, Any]) -> Iterator[dict[str, Any]]:
        size = self.recipe.batch_size
        for start in range(0, size * self.recipe.accumulate, size):
            yield {key: value[start : start + size] for key, value in batch.items()}


logger = logging.getLogger(__name__)
LINE = ("image_loss", "focal", "dice_abnormal", "dice_normal")


class StepLog:
    """A line of JSON per step into the run's log; now and then one for people into Python's.

    Lines of the log hold no times, so that the logs of equal runs are equal.

    Args:
        folder: of the run.
        every: steps between lines for people.
        images: per step, of all processes.
    """

    def __init__(self, folder: RunFolder, *, every: int, images: int) -> None:
        self.folder = folder
        self.every = every
        self.images = images
        self._mark = (time.perf_counter(), 0)

    def attach(self, engine: Engine) -> None:
        """Follows every step of ``engine``."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def _start(self, engine: Engine) -> None:
        self._mark = (time.perf_counter(), engine.state.iteration)

    def __call__(self, engine: Engine) -> None:
        step, output = engine.state.iteration, _figures_of(engine)
        values = {name: value for name, value in output.items() if name != "stop"}
        self.folder.append_log({"step": step, "epoch": engine.state.epoch, **values})
        total = certain(engine.state.epoch_length) * certain(engine.state.max_epochs)
        if step % self.every == 0 or step == total:
            now, (then, first) = time.perf_counter(), self._mark
            per_step = (now - then) / max(1, step - first)
            parts = ", ".join(f"{name.replace('_', ' ')} {output[name]:.4f}" for name in LINE)
            logger.info(
                f"epoch {engine.state.epoch}/{engine.state.max_epochs}  step {step}/{total}  loss "
                f"{output['loss']:.4f} ({parts})  lr {output['lr']:.3g}  "
                f"{self.images / per_step:.1f} images/s  {_duration(per_step * (total - step))} left"
            )
            self._mark = (now, step)


class Checkpoints:
    """Stores the state every so many steps, at the end of every epoch, and when the run is to stop.

    The end of an epoch is stored once everything is done that belongs to it, validation included: a run
    killed in between does it again.

    Args:
        store: stores the state.
        every: steps; 0 for epochs alone.

    Attributes:
        stopped: whether the run was stopped before its end.
    """

    def __init__(self, store: Callable[[Engine], None], *, every: int) -> None:
        self.store = store
        self.every = every
        self.stopped = False

    def attach(self, engine: Engine) -> None:
        """Follows ``engine``; must be attached after whatever its states shall include."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._after_step)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._after_epoch)

    def _after_step(self, engine: Engine) -> None:
        step = engine.state.iteration
        if step % certain(engine.state.epoch_length) == 0:
            return
        stop = _figures_of(engine)["stop"] > 0
        if stop or (self.every and step % self.every == 0):
            self.store(engine)
        if stop:
            self.stopped = True
            engine.terminate()

    def _after_epoch(self, engine: Engine) -> None:
        self.store(engine)
        if _figures_of(engine)["stop"] > 0 and engine.state.epoch < certain(engine.state.max_epochs):
            self.stopped = True
            engine.terminate()


class Validation:
    """Measures after epochs, and tells when a new best adapter is there.

    Args:
        measure: gives the figures of each data set.
        metric: which of them decides.
        every: epochs; the last one is always measured.
        progress: gets what was found.
        on_best: called when the figure is the highest so far.
        log: whose log gets a line, and that tells people; None in processes that write nothing.
    """

    def __init__(
        self,
        measure: Callable[[], dict[str, Figures]],
        *,
        metric: str,
        every: int,
        progress: Progress,
        on_best: Callable[[Engine], None],
        log: RunFolder | None = None,
    ) -> None:
        self.measure = measure
        self.metric = metric
        self.every = every
        self.progress = progress
        self.on_best = on_best
        self.log = log

    def attach(self, engine: Engine) -> None:
        """Follows the epochs of ``engine``."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        epoch, step = engine.state.epoch, engine.state.iteration
        if epoch % self.every and epoch != engine.state.max_epochs:
            return
        results = self.measure()
        chosen = chosen_figure(results, self.metric)
        line = {"step": step, "epoch": epoch, "validation": results, "chosen": chosen}
        self.progress.validations.append(line)
        if self.log is not None:
            self.log.append_log(line)
        # TensorBoard's handler takes what stands here.
        engine.state.metrics = {
            f"{dataset}/{name}": value
            for dataset, figures in results.items()
            for name, value in figures.items()
            if value is not None
        }
        is_best = self.progress.best is None or chosen > self.progress.best
        if is_best:
            self.progress.best, self.progress.best_step = chosen, step
            self.on_best(engine)
        if self.log is not None:
            parts = "; ".join(f"{name}: {_figures(figures)}" for name, figures in results.items())
            mark = ", the best so far" if is_best else ""
            logger.info(f"epoch {epoch}  validation {self.metric} {100 * chosen:.1f} %{mark}  ({parts})")


def _figures_of(engine: Engine) -> dict[str, float]:
    """Return what :class:`~medzsad.training.engine.Stepper` returned; ignite takes it for a number."""
    return cast("dict[str, float]", engine.state.output)


def _figures(figures: Figures) -> str:
    shown = {
        "image_auroc": "image AUROC",
        "image_mad": "image mAD",
        "pixel_auroc": "pixel AUROC",
        "pixel_mad": "pixel mAD",
    }
    defined = {name: value for name, value in figures.items() if value is not None}
    parts = [f"{title} {100 * defined[name]:.1f}" for name, title in shown.items() if name in defined]
    return ", ".join(parts) or "undefined"


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s"
