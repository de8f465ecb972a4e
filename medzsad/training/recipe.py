"""Training recipes: everything that determines a training run, read from YAML."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import field, replace
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationInfo, field_validator

from medzsad.datasets.catalog import find_entry
from medzsad.detectors.protocols import trainable_class
from medzsad.errors import BadInput
from medzsad.limits import check_batch, check_limit
from medzsad.settings import Settings, compose_file, find, override, read_node
from medzsad.storage.shipped import file_or_shipped
from medzsad.training.augmentation import Augmentation
from medzsad.training.objectives import LossWeights

Count = Annotated[int, Field(ge=1)]
Limit = Annotated[int | None, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Rate = Annotated[float | None, Field(ge=0)]
CutPlane = Literal["auto", "axial", "coronal", "sagittal"]
SYNTHETIC = "synthetic"
"""Data set name of images that are made for trying out; see :mod:`medzsad.training.synthetic_set`."""

# What may change between an interrupted run and its continuation without changing what comes out.
_WITHOUT_EFFECT = ("name", "workers", "checkpoint_every", "log_every", "keep")


class DataSource(Settings):
    """A data set to train on, or to validate with.

    Attributes:
        dataset: a name of the catalogue, or ``"synthetic"``.
        root: its folder; None for that of ``MEDZSAD_DATA``.
        split: the published trainings use the test split of their auxiliary sets.
        classes: only these.
        limit: only so many images (or volumes), evenly spread.
        channel, labels: of volumes, see :func:`medzsad.datasets.opening.open_dataset`.
        plane: of volumes, in which they are cut; ``"auto"`` is the acquisition plane.
        weight: how often each image is seen per epoch, on average; 1000 at most.
        mosaic: rate of mosaics of its images; None for that of the recipe's augmentation.
    """

    dataset: str
    root: str | None = None
    split: Literal["test", "train", "valid"] = "test"
    classes: tuple[str, ...] | None = None
    limit: Limit = None
    channel: str | None = None
    labels: tuple[int, ...] | None = None
    plane: CutPlane = "auto"
    weight: Annotated[float, Field(gt=0, le=1000)] = 1.0
    mosaic: Annotated[float | None, Field(ge=0, le=1)] = None

    def __post_init__(self) -> None:
        if self.dataset != SYNTHETIC:
            try:
                find_entry(self.dataset)
            except BadInput as error:
                raise BadInput(f"dataset: {error}, {SYNTHETIC}") from error


class Validation(Settings):
    """What is measured during training, and decides which adapter is the best.

    Attributes:
        data: the sets; empty for no validation, in which case the last adapter is the best.
        every: epochs between validations.
        metric: the figure, averaged over the sets; ``"mad"`` averages image and pixel mAD. AdaCLIP is
            published with the epoch of the highest ``"pixel_f1_max"``.
        limit: of the images of each set that has no limit of its own.
        batch_size: images at once.
    """

    data: tuple[DataSource, ...] = ()
    every: Count = 1
    metric: Literal[
        "mad",
        "image_mad",
        "pixel_mad",
        "image_auroc",
        "image_ap",
        "image_f1_max",
        "pixel_auroc",
        "pixel_ap",
        "pixel_f1_max",
        "pixel_aupro",
    ] = "mad"
    limit: Limit = None
    batch_size: Count = 4


class GroupRates(Settings):
    """Learning rates of parts; None for the optimiser's own."""

    prompts: Rate = None
    head_weights: Rate = None
    projections: Rate = None


class Optimiser(Settings):
    """The optimiser.

    Attributes:
        name: ``"adam"``, or ``"adamw"`` with decoupled weight decay.
        lr: learning rate.
        betas, weight_decay, eps: of Adam.
        group_lr: learning rates of parts that have their own.
        schedule: ``"constant"``, or ``"cosine"`` down to 0 at the end.
        warmup_steps: over which the rate rises to its value.
        clip_norm: largest norm of the gradient; None for no limit.
    """

    name: Literal["adam", "adamw"] = "adam"
    lr: Positive = 1e-3
    betas: tuple[float, float] = (0.5, 0.999)
    weight_decay: NotNegative = 0.0
    eps: Positive = 1e-8
    group_lr: GroupRates = field(default_factory=GroupRates)
    schedule: Literal["constant", "cosine"] = "constant"
    warmup_steps: Natural = 0
    clip_norm: Annotated[float | None, Field(gt=0)] = None

    def __post_init__(self) -> None:
        if not all(0 <= beta < 1 for beta in self.betas):
            raise BadInput(f"betas must lie in [0, 1), not {list(self.betas)}")


class Recipe(Settings):
    """Everything that determines a training run.

    Attributes:
        name: of the run.
        method: what is trained.
        detector: its settings, the backbone among them (``clip_weights: null`` for random weights).
        data: what it is trained on, mixed.
        validation: what is measured meanwhile.
        loss: weights; read from a file, ``pixel`` and ``dice`` are the method's published ones by default.
        focal_alpha: weights of normal and abnormal in focal losses, or ``"balanced"``; None as published.
        augmentation: random changes of the images.
        optimiser: see there.
        epochs: how often the data are seen.
        batch_size: images at once, per process.
        accumulate: batches per step.
        precision: tf32, on GPUs, is fp32 with products of matrices at 10 bits of mantissa; bf16 and fp16 by
            autocast; fp16 with loss scaling, on CUDA only.
        gradient_checkpointing: compute activations twice instead of keeping them.
        cache_features: keep what of the images no step changes; for images that are not augmented.
        seed: of prompts, order and augmentation.
        deterministic: ask torch for deterministic algorithms.
        workers: processes that read images; 0 reads between steps.
        checkpoint_every: steps between states that a stopped run goes on from; 0 for once an epoch.
        log_every: steps between lines on the terminal; the log file has all.
        keep: of how many of the last epochs the adapters are kept as well.
    """

    name: str
    method: Literal["headclip", "anomalyclip", "adaclip"]
    detector: Any
    data: tuple[DataSource, ...]
    validation: Validation = field(default_factory=Validation)
    loss: LossWeights = field(default_factory=LossWeights)
    focal_alpha: tuple[float, float] | Literal["balanced"] | None = None
    augmentation: Augmentation = field(default_factory=Augmentation)
    optimiser: Optimiser = field(default_factory=Optimiser)
    epochs: Count = 15
    batch_size: Count = 8
    accumulate: Count = 1
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"
    gradient_checkpointing: bool = False
    cache_features: bool = False
    seed: Natural = 111
    deterministic: bool = False
    workers: Natural = 0
    checkpoint_every: Natural = 0
    log_every: Count = 10
    keep: Natural = 0

    def __post_init__(self) -> None:
        if not self.name.strip() or any(mark in self.name for mark in "/\\\n"):
            raise BadInput(f"name {self.name!r} must be a plain word, for it names the run's folder")
        if not self.data:
            raise BadInput("data must hold at least one data set")
        batches = (self.batch_size * self.accumulate, self.validation.batch_size)
        check_batch(self.detector.image_size, max(batches), f"batch_size {max(batches)}")
        check_limit(self.workers, "MEDZSAD_MAX_WORKERS", f"workers {self.workers}", "processes")

    @field_validator("detector", mode="before")
    @classmethod
    def _settings_of_the_method(cls, values: Any, info: ValidationInfo) -> Any:
        """Return the settings as those of the method; where that is wrong, it is what is told."""
        method = info.data.get("method")
        return None if method is None else trainable_class(method).settings_class.validate(values)

    def without_paths(self) -> dict[str, Any]:
        """As :meth:`as_dict`, without folders: what a published adapter says about itself."""
        content = self.as_dict()
        detector = content["detector"]
        detector["clip_weights"] = file_name(detector["clip_weights"])
        for source in (*content["data"], *content["validation"]["data"]):
            source["root"] = None
        return content

    def as_yaml(self) -> str:
        """Return the recipe with every default written out; :func:`read_recipe` reads it back as the same."""
        return yaml.safe_dump(self.as_dict(), sort_keys=False, allow_unicode=True, width=100)

    def digest(self) -> str:
        """Return a hash of all that can change what comes out; folders are not part of it."""
        content = {key: value for key, value in self.without_paths().items() if key not in _WITHOUT_EFFECT}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def differences(self, other: Recipe) -> list[str]:
        """Dotted keys, of those that :meth:`digest` covers, whose values differ."""
        mine, theirs = (
            _flat({k: v for k, v in recipe.without_paths().items() if k not in _WITHOUT_EFFECT})
            for recipe in (self, other)
        )
        return [key for key in dict.fromkeys((*mine, *theirs)) if mine.get(key) != theirs.get(key)]

    def with_roots(self, roots: dict[str, str]) -> Recipe:
        """Return the recipe with the folders of data sets, by name.

        Raises:
            BadInput: if the recipe has no such data set.
        """
        names = {source.dataset for source in (*self.data, *self.validation.data)}
        for name in roots:
            if name not in names:
                raise BadInput(
                    f"the recipe {self.name} uses no data set {name!r}; it uses {', '.join(sorted(names))}"
                )

        def rooted(sources: tuple[DataSource, ...]) -> tuple[DataSource, ...]:
            return tuple(replace(s, root=roots.get(s.dataset, s.root)) for s in sources)

        validation = replace(self.validation, data=rooted(self.validation.data))
        return replace(self, data=rooted(self.data), validation=validation)


def read_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe.

    Args:
        path: a YAML file, or the name of a recipe that comes with medzsad, such as ``"smoke"``.
        overrides: ``key=value``, with dotted keys: ``optimiser.lr=1e-4``, ``data.0.root=DIR``.

    Raises:
        BadInput: on unknown keys, wrong types and impossible values; the message begins with the file and the
            line, or names the override, and says what is allowed.
    """
    root = compose_file(file_or_shipped(Path(path), "configs", ".yaml"))
    for text in overrides:
        override(root, text)
    recipe = read_node(root, Recipe)
    loss, published = find(root, "loss"), LossWeights.of_method(recipe.method)
    unsaid = {
        name: getattr(published, name)
        for name in ("pixel", "dice")
        if loss is None or find(loss, name) is None
    }
    return replace(recipe, loss=replace(recipe.loss, **unsaid))


def file_name(clip_weights: str | None) -> str | None:
    """Return what may be published of the name of CLIP weights: a tag, or a file without its folder."""
    return clip_weights and PurePath(clip_weights).name


def _flat(content: Any, prefix: str = "") -> dict[str, Any]:
    pairs: Iterable[tuple[object, Any]]
    if isinstance(content, dict):
        pairs = content.items()
    elif isinstance(content, list) and any(isinstance(item, dict) for item in content):
        pairs = enumerate(content)
    else:
        return {prefix.rstrip("."): content}
    return {k: v for key, value in pairs for k, v in _flat(value, f"{prefix}{key}.").items()}
