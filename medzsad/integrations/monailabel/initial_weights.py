"""What a training begins with: CLIP weights, and an adapter or none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medzsad.detectors.checkpoint import Checkpoint, read_checkpoint
from medzsad.detectors.headclip.model import HeadCLIP
from medzsad.detectors.headclip.settings import HeadCLIPSettings
from medzsad.errors import BadInput, ModelNotReady
from medzsad.integrations.monailabel.models import NAME, ModelList, OfferedModel
from medzsad.integrations.monailabel.parameters import NEWEST, UNTRAINED, AppConf, TrainParameters
from medzsad.storage import cache
from medzsad.zoo.catalogue import WeightFile, catalogue, find_clip
from medzsad.zoo.loading import RUN_CLIP, load_detector, run_adapter

if TYPE_CHECKING:
    from medzsad.training.recipe import DataSource, Recipe

PREFERRED_CLIP, ITS_SIZE = "clip-vit-l-14-336-openai", 518
DEEPEST_PROMPT = 8  # of HeadCLIPSettings.deep_depth


@dataclass(frozen=True)
class StartingPoint:
    """What a training begins with.

    Attributes:
        settings: of the detector.
        clip_weights: a file, for :func:`medzsad.training.train.train` and :func:`medzsad.load_detector`; None
            where the settings name weights that the cache holds.
        learned: what training begins with; None for untrained prompts.
        described: in words, without folders.
    """

    settings: HeadCLIPSettings
    clip_weights: str | None
    learned: Checkpoint | None
    described: str

    def recipe(self, name: str, data: tuple[DataSource, ...], parameters: TrainParameters) -> Recipe:
        """Return the training as a recipe."""
        from medzsad.training.augmentation import Augmentation
        from medzsad.training.objectives import LossWeights
        from medzsad.training.recipe import Optimiser, Recipe

        return Recipe(
            name=name,
            method="headclip",
            detector=self.settings,
            data=data,
            loss=LossWeights.of_method("headclip"),
            augmentation=Augmentation(flip_horizontal=0.5),
            optimiser=Optimiser(lr=parameters.rate, clip_norm=1.0),
            epochs=parameters.epochs,
            batch_size=parameters.batch_size,
            seed=parameters.seed,
            log_every=5,
        )


def find_start(wanted: str, models: ModelList, settings: AppConf) -> StartingPoint:
    """Return the starting point that a request names.

    Args:
        wanted: ``"newest"``, ``"untrained"``, or a model's name.
        models: the models of the app.
        settings: of the app: the CLIP weights.

    Raises:
        BadInput: if there is no such model, or it is no HeadCLIP.
        ModelNotReady: if no CLIP weights are there.
    """
    model = _model(wanted, models, settings)
    if model is not None:
        return _from_model(model)
    detector, weights, named = _clip(settings)
    return StartingPoint(detector, weights, None, f"untrained prompts on {named}")


def check_start(wanted: str, models: ModelList, settings: AppConf) -> None:
    """Find out whether :func:`find_start` can succeed; no detector is loaded.

    Raises:
        BadInput, ModelNotReady: see there.
    """
    model = _model(wanted, models, settings)
    if model is None:
        _clip(settings)
    elif model.clip_weights is not None:
        if not Path(model.clip_weights).is_file():
            raise ModelNotReady(f"start {model.name!r}: the file of its CLIP weights is gone")
    elif model.source not in catalogue().models and not (Path(model.source) / RUN_CLIP).is_file():
        its = _stored(model).settings
        file = find_clip(catalogue().files, its.get("backbone"), its.get("clip_weights"))
        if file is not None and not cache.is_ready(file.name):
            raise ModelNotReady(
                f"start {model.name!r}: its CLIP is not ready: run medzsad models fetch {file.name}"
            )


def _model(wanted: str, models: ModelList, settings: AppConf) -> OfferedModel | None:
    """Return the HeadCLIP that a request names; None for untrained prompts."""
    known = models.current()
    if wanted not in (NEWEST, UNTRAINED):
        if wanted not in known:
            names = ", ".join((NEWEST, UNTRAINED, *known))
            raise BadInput(f"start {wanted!r}: no such model; use one of: {names}")
        method = _method(known[wanted])
        if method != HeadCLIP.method:
            raise BadInput(f"start {wanted!r}: a {method!r} detector; choose a HeadCLIP")
        return known[wanted]
    if wanted == UNTRAINED:
        return None
    return known.get(NAME) or (None if settings.clip_weights else _headclip_of_zoo(known))


def _method(model: OfferedModel) -> str:
    entry = catalogue().models.get(model.source)
    return entry.method if entry is not None else _stored(model).method


def _stored(model: OfferedModel) -> Checkpoint:
    return read_checkpoint(run_adapter(model.source) or model.source)


def _headclip_of_zoo(known: Mapping[str, OfferedModel]) -> OfferedModel | None:
    zoo = catalogue().models
    return next((m for m in known.values() if m.source in zoo and zoo[m.source].method == "headclip"), None)


def _from_model(model: OfferedModel) -> StartingPoint:
    detector = load_detector(model.source, device="cpu", clip_weights=model.clip_weights)
    if not isinstance(detector, HeadCLIP):
        raise BadInput(f"start {model.name!r}: a {detector.method!r} detector; choose a HeadCLIP")
    entry, beside = catalogue().models.get(model.source), Path(model.source) / RUN_CLIP
    config, weights = detector.config, model.clip_weights
    named = find_clip(catalogue().files, config.backbone, config.clip_weights)
    if weights is None and named is None and entry is not None and entry.clip is not None:
        weights = str(cache.slot(entry.clip))
    elif weights is None and beside.is_file():
        weights = str(beside)
    learned = replace(detector.to_checkpoint(), training={"seen": list(detector.seen)})
    return StartingPoint(config, weights, learned, model.name)


def _clip(settings: AppConf) -> tuple[HeadCLIPSettings, str | None, str]:
    """Return an untrained detector's settings, its CLIP's file unless the cache has it, and its name."""
    files = {name: file for name, file in catalogue().files.items() if file.kind == "clip"}
    given = settings.clip_weights
    if given and given not in files:
        path = Path(given).expanduser()
        if not path.is_file():
            raise ModelNotReady(
                f"`conf` clip_weights {given}: neither a CLIP of the catalogue nor a file; "
                f"see medzsad models info {PREFERRED_CLIP}"
            )
        return _settings_for(settings.architecture, path.name), str(path.resolve()), path.name
    ready = [file for file in files.values() if cache.is_ready(file.name)]
    if given:
        chosen: WeightFile | None = next((file for file in ready if file.name == given), None)
    else:
        chosen = min(ready, key=lambda file: file.name != PREFERRED_CLIP, default=None)
    if chosen is None:
        name = given or PREFERRED_CLIP
        raise ModelNotReady(
            f"training needs CLIP weights, and {name} is not ready: run medzsad models fetch {name}, or "
            "start the server with `clip_weights` FILE"
        )
    assert chosen.architecture is not None  # every CLIP's entry has it
    return _settings_for(chosen.architecture, chosen.tag or chosen.name), None, chosen.name


def _settings_for(architecture: str | Mapping[str, Any], named: str) -> HeadCLIPSettings:
    from medzsad.detectors.clip.configuration import read_configuration

    _, config = read_configuration(architecture, text=True)
    size = int(config["vision_cfg"].get("image_size", 224))
    layers = int(config["text_cfg"].get("layers", 12))
    detector = HeadCLIPSettings(
        backbone=architecture if isinstance(architecture, str) else dict(architecture),
        clip_weights=named,
        image_size=ITS_SIZE if architecture == "ViT-L-14-336" else size,
    )
    return replace(detector, deep_depth=min(DEEPEST_PROMPT, layers - 1))
