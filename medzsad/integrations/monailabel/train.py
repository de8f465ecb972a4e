"""The ``train`` task: HeadCLIP learns from the labels submitted so far; the result is the next version."""

from __future__ import annotations

import datetime
import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.train import TrainTask

from medzsad.errors import BadInput, MedzsadError
from medzsad.integrations.monailabel.answers import refusal, refusing
from medzsad.integrations.monailabel.initial_weights import StartingPoint, check_start, find_start
from medzsad.integrations.monailabel.models import RECORD, ModelList, Version, Versions
from medzsad.integrations.monailabel.parameters import NEWEST, PLANES, UNTRAINED, AppConf, TrainParameters
from medzsad.integrations.monailabel.submitted import Submitted, collect
from medzsad.storage.cache import locked
from medzsad.training.run_folder import RunFolder

if TYPE_CHECKING:
    from medzsad.training.recipe import Recipe

logger = logging.getLogger(__name__)
STEPS = "data/steps.txt"
"""In the folder of a run that goes on: how many steps it will take."""


class HeadclipTraining(TrainTask):
    """Trains on the datastore's final labels.

    MONAI Label runs it in a process of its own, which ``DELETE /train/`` ends; the server goes on meanwhile,
    and offers the adapter as soon as it is whole. Former ones stay, each a model of its own.

    Args:
        versions: where adapters are kept.
        models: what may be started from.
        settings: of the app: device, CLIP weights.
    """

    def __init__(self, versions: Versions, models: ModelList, settings: AppConf) -> None:
        super().__init__("HeadCLIP, fine-tuned on the labels submitted so far")
        self.versions, self.models, self.settings = versions, models, settings

    def config(self) -> dict[str, Any]:
        """Return what 3D Slicer shows under "Options"."""
        default = TrainParameters()
        return {
            "epochs": default.epochs,
            "max_steps": default.max_steps,
            "batch_size": default.batch_size,
            "rate": default.rate,
            "plane": list(PLANES),
            "start": [NEWEST, UNTRAINED],
        }

    def stats(self) -> dict[str, Any]:
        """How far the newest training is; 3D Slicer draws its progress bar from it."""
        run = self.versions.latest_run()
        if run is None:
            return {}
        try:
            record = json.loads((run / RECORD).read_text(encoding="utf-8"))
            done = {"total_time": record["seconds"]}
            step = steps = int(record["steps"])
        except (OSError, ValueError):
            try:
                steps, done = int((run / STEPS).read_text(encoding="ascii")), {}
            except (OSError, ValueError):
                return {}
            step = max((int(line["step"]) for line in RunFolder(run).read_log()), default=0)
        # 3D Slicer's words; it has none for steps.
        return {"name": run.name, "epoch": step, "total_epochs": steps, **done}

    def check(self, request: Mapping[str, Any]) -> None:
        """Refuse a training that cannot be, before its task is started; labels are looked at by the task.

        Raises:
            HTTPException: 422 on a parameter that cannot be used, or without CLIP weights.
        """
        try:
            check_start(TrainParameters.parse(request).start, self.models, self.settings)
        except MedzsadError as error:
            raise refusal(str(error)) from None

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Trains, and publishes the adapter.

        Args:
            request: see :class:`TrainParameters`.
            datastore: the scans and their labels.

        Returns:
            The record of the new version, with its name as ``model``.

        Raises:
            HTTPException: 422 on a parameter that cannot be used or without a label to learn from, 503
                without CLIP weights; one line says why.
        """
        with refusing():
            parameters = TrainParameters.parse(request)
            with locked(self.versions.folder.with_suffix(".lock"), on_wait=_tell_wait):
                start = find_start(parameters.start, self.models, self.settings)
                logger.info("training starts from: %s", start.described)
                version = self._train(parameters, start, datastore)
        logger.info("done: %s", version.name)
        return {"model": version.name, **version.record}

    def _train(self, parameters: TrainParameters, start: StartingPoint, datastore: Datastore) -> Version:
        from medzsad.detectors.devices import resolve_device, resolve_precision
        from medzsad.training.sources import open_source
        from medzsad.training.train import train

        run = self.versions.begin()
        labels = run / "data" / "labels"
        try:
            found = collect(datastore, labels, plane=parameters.plane)
            _check(found)
            device = resolve_device(self.settings.device)
            recipe = start.recipe(run.name, found.sources, parameters)
            recipe = replace(recipe, precision=resolve_precision(self.settings.precision, device))
            side = recipe.detector.image_size
            slices = sum(len(open_source(source, run / "data", side=side).samples) for source in recipe.data)
            recipe = _limited(recipe, slices, parameters)
            (run / STEPS).write_text(str(_steps(recipe, slices)), encoding="ascii")
            result = train(
                recipe,
                run,
                device=str(device),
                clip_weights=start.clip_weights,
                start=start.learned,
            )
        except BaseException:
            shutil.rmtree(run, ignore_errors=True)
            raise
        if not result.finished:
            shutil.rmtree(run, ignore_errors=True)
            raise BadInput("the training was stopped")
        for rest in ("data", "last", "features", "tensorboard"):  # slices of patients among it
            shutil.rmtree(run / rest, ignore_errors=True)
        record = {
            "created": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
            "labels": found.labels,
            "anomalous": found.anomalous,
            "left_out": len(found.left_out),
            "slices": slices,
            "steps": result.steps,
            "seconds": result.progress.seconds,
            "start": start.described,
            "clip_weights": start.clip_weights,
        }
        return self.versions.publish(run, record)


def _check(found: Submitted) -> None:
    for line in found.left_out:
        logger.warning("left out: %s", line)
    if not found.labels:
        some = (
            f"none of the {len(found.left_out)} labels can be used"
            if found.left_out
            else "no label was submitted"
        )
        raise BadInput(f"{some}; submit final labels first, in which anomalies are marked")
    if not found.anomalous:
        raise BadInput(f"nothing is marked in the {found.labels} labels; submit one with an anomaly")
    logger.info("%d labels, in %d something is marked", found.labels, found.anomalous)


def _limited(recipe: Recipe, slices: int, parameters: TrainParameters) -> Recipe:
    """Return the recipe, with as many slices an epoch as ``max_steps`` allows."""
    if not parameters.max_steps or _steps(recipe, slices) <= parameters.max_steps:
        return recipe
    epochs = min(parameters.epochs, parameters.max_steps)
    weight = parameters.max_steps * parameters.batch_size / (epochs * slices)
    weight = min(1.0, max(weight, 1 / slices))
    data = tuple(replace(source, weight=weight) for source in recipe.data)
    return replace(recipe, data=data, epochs=epochs)


def _steps(recipe: Recipe, slices: int) -> int:
    """How many steps a training takes, up to rounding."""
    return -(-max(1, round(slices * recipe.data[0].weight)) // recipe.batch_size) * recipe.epochs


def _tell_wait() -> None:
    logger.info("another training runs; waiting")
