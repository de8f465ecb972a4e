"""One optimiser step: accumulation, mixed precision, averaging over processes, clipping."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from ignite.engine import Engine

from medzsad.detectors.base import DTYPES, AnomalyDetector
from medzsad.errors import BadInput
from medzsad.training.building import rate_factor, trainable
from medzsad.training.distributed import Processes
from medzsad.training.frozen_features import FeatureCache
from medzsad.training.objectives import Objective, TrainingBatch
from medzsad.training.recipe import Recipe

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
