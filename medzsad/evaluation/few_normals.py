"""How much a few normal samples help: profiles of some, drawn several times, on the rest of a data set."""

from __future__ import annotations

import contextlib
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from medzsad.datasets.opening import DatasetQuery
from medzsad.datasets.samples import Sample, SampleSet, VolumeSample
from medzsad.errors import BadInput, certain
from medzsad.evaluation.outcome import ClassOutcome, DetectorOutcome, Figure, Figures, mean_figures
from medzsad.scans.find import ScanPlace
from medzsad.settings import Settings

if TYPE_CHECKING:
    from medzsad.detectors.base import AnomalyDetector
    from medzsad.evaluation.settings import EvaluationSettings

OWN = "own"
SHOTS = (1, 2, 4)

Normal = Sample | VolumeSample | ScanPlace
Run = Callable[[SampleSet, "AnomalyDetector"], DetectorOutcome]
"""Evaluates one detector on samples."""


class FewNormals(Settings):
    """Which normal samples profiles are made of.

    Attributes:
        source: ``"own"`` (the set's normal training samples; where it has none, normal ones of the test,
            which are then left out of it), or a folder of normal scans, with a folder for each class of a set
            that has several.
        shots: how many normal samples a profile gets, in turn; None for 1, 2 and 4 of the set's own, and for
            all in a folder.
        draws: how often they are drawn. Those of fewer shots are among those of more.
        features, augmentation: see :func:`~medzsad.training.normals.fit_normals`.
        device: that profiles compute on.
        seed: of the draws.
    """

    source: str = OWN
    shots: tuple[int, ...] | None = None
    draws: int = Field(default=3, ge=1)
    features: str = "lite0"
    augmentation: Literal["none", "flip", "rotations"] = "flip"
    device: str = "auto"
    seed: int = Field(default=0, ge=0)

    def __post_init__(self) -> None:
        if self.shots is not None and (not self.shots or min(self.shots) < 1):
            raise BadInput("`shots` must be whole numbers from 1 up, such as 1,2,4")


@dataclass(frozen=True)
class Drawn:
    """Normal samples that were drawn, and what is left to be tested on.

    Attributes:
        samples: the data set without those that were drawn at any time.
        shots: how many a profile gets, in turn.
        normals: for each draw the normal samples of each class, in the order in which they are taken.
    """

    samples: SampleSet
    shots: tuple[int, ...]
    normals: list[dict[str, list[Normal]]]


def draw_normals(few: FewNormals, query: DatasetQuery, samples: SampleSet) -> Drawn:
    """Draw normal samples.

    Args:
        few: how.
        query: that ``samples`` came from; its training split is looked for.
        samples: the data set.

    Raises:
        BadInput: there are fewer than asked for, or no normal sample of a class would be left to test on.
    """
    pools = _own(query, samples) if few.source == OWN else _in_folder(Path(few.source), samples.classes)
    smallest = min(pools, key=lambda name: len(pools[name]))
    count = len(pools[smallest])
    in_folder_all = few.shots is None and few.source != OWN
    shots = (count,) if in_folder_all else tuple(sorted(set(few.shots or SHOTS)))
    if count < max(shots):
        raise BadInput(
            f"{smallest} has {count} normal samples to draw from, `shots` asks for {max(shots)}; take fewer"
        )
    normals = []
    for number in range(1 if in_folder_all else few.draws):
        dice = {name: random.Random(f"{few.seed} {number} {name}") for name in pools}
        normals.append({name: dice[name].sample(pool, max(shots)) for name, pool in pools.items()})
    drawn = {_file(normal) for draw in normals for found in draw.values() for normal in found}
    rest = tuple(sample for sample in samples if sample.image.resolve() not in drawn)
    for name in samples.classes:
        left = [sample for sample in rest if sample.class_name == name]
        if not left or (not samples.is_volumetric and all(getattr(sample, "label", 1) for sample in left)):
            raise BadInput(
                f"of {name} no normal sample would be left to test on; ask for fewer `shots` or `draws`"
            )
    notes = [f"normals: {', '.join(map(str, shots))} of each class, {len(normals)} draws, seed {few.seed}"]
    if len(rest) < len(samples):
        notes.append(f"{len(samples) - len(rest)} samples were drawn as normals and left out of the test")
    if len(normals) > 1:
        notes.append("with normals: mean and standard deviation over draws; curves and cases of the first")
    return Drawn(replace(samples, samples=rest, notes=(*samples.notes, *notes)), shots, normals)


def few_outcomes(
    few: FewNormals,
    drawn: Drawn,
    detectors: Sequence[AnomalyDetector],
    settings: EvaluationSettings,
    run: Run,
) -> list[DetectorOutcome]:
    """Return an outcome for each number of shots and each detector combined with profiles.

    Args:
        few: how profiles are made.
        drawn: of what.
        detectors: to combine with; with none of them profiles stand alone.
        settings: of the evaluation: profiles are made of images as these show them.
        run: evaluates one.
    """
    from medzsad.detectors.normals.combination import Combined

    outcomes = []
    for shots in drawn.shots:
        what = f"{shots} normal{'s' if shots > 1 else ''}"
        profiles: dict[str, list[dict[str, AnomalyDetector]]] = {}  # by framing, draw and class
        for detector in detectors or (None,):
            framing = "foreground" if detector is None else detector.framing
            framing = framing if settings.framing == "auto" else settings.framing
            framing = "foreground" if drawn.samples.is_volumetric else framing
            if framing not in profiles:
                profiles[framing] = _profiles(few, drawn, shots, framing)
            name = what if detector is None else f"{detector.name} + {what}"
            draws = []
            for of_class in profiles[framing]:
                parts = []
                for class_name, profile in of_class.items():
                    whole = profile if detector is None else Combined(detector, profile)
                    whole.name = name
                    members = tuple(s for s in drawn.samples if s.class_name == class_name)
                    parts.append(run(replace(drawn.samples, samples=members), whole))
                draws.append(_joined(parts))
            outcomes.append(_mean_of(draws, {"shots": shots, "draws": len(draws)}))
    return outcomes


def _profiles(few: FewNormals, drawn: Drawn, shots: int, framing: str) -> list[dict[str, AnomalyDetector]]:
    """Return for each draw the profile of each class."""
    from medzsad.training.normals import fit_normals

    found = []
    for number, normals in enumerate(drawn.normals):
        of_class: dict[str, AnomalyDetector] = {}
        for name in drawn.samples.classes:
            profile = fit_normals(
                [_item(normal) for normal in normals[name][:shots]],
                features=few.features,
                augmentation=few.augmentation,
                framing=framing,
                any_modality=True,
                device=few.device,
                seed=few.seed,
            )
            profile.name, profile.any_modality = f"{shots} of {name}, draw {number + 1}", True
            of_class[name] = profile
        found.append(of_class)
    return found


def _own(query: DatasetQuery, samples: SampleSet) -> dict[str, list[Normal]]:
    """Return the normal samples of each class: of the training split, else of the samples themselves."""
    train: SampleSet | None = None
    with contextlib.suppress(BadInput):  # it may have no such split
        train = replace(query, split="train", limit=None).open()
    pools = {}
    for name in samples.classes:
        pools[name] = _normal(train, name) if train is not None else []
        pools[name] = pools[name] or _normal(samples, name)
        if not pools[name]:
            raise BadInput(
                f"{name} has no normal samples to draw from; give a folder of normals as `normals`"
            )
    return pools


def _normal(samples: SampleSet, name: str) -> list[Normal]:
    members = [sample for sample in samples if sample.class_name == name]
    return [
        sample
        for sample in members
        if not (sample.label if isinstance(sample, Sample) else sample.read_label().any())
    ]


def _in_folder(folder: Path, classes: Sequence[str]) -> dict[str, list[Normal]]:
    from medzsad.training.normals import normal_places

    pools: dict[str, list[Normal]] = {}
    for name in classes:
        own = folder / name if len(classes) > 1 else folder
        if not own.is_dir():
            raise BadInput(f"{own} is missing: of several classes, the normals lie in a folder for each")
        pools[name] = list(normal_places([own])[0])
    return pools


def _file(normal: Normal) -> Path:
    return (normal.path if isinstance(normal, ScanPlace) else normal.image).resolve()


def _item(normal: Normal) -> Path | ScanPlace | VolumeSample:
    """Return a normal sample as profiles are made of it."""
    return normal.image if isinstance(normal, Sample) else normal


def _joined(parts: Sequence[DetectorOutcome]) -> DetectorOutcome:
    """Return the outcome of a set from those of its classes."""
    classes = [one for part in parts for one in part.classes]
    return replace(
        parts[0],
        classes=classes,
        mean=mean_figures(classes),
        mode="histogram" if any(part.mode == "histogram" for part in parts) else "exact",
        seconds=round(sum(part.seconds for part in parts), 2),
        reused=sum(part.reused for part in parts),
    )


def _mean_of(draws: Sequence[DetectorOutcome], settings: dict[str, int]) -> DetectorOutcome:
    """Return the mean outcome over draws; what has no mean is of the first."""
    classes: list[ClassOutcome] = [
        replace(first, figures=_mean_figures([draw.classes[number].figures for draw in draws]))
        for number, first in enumerate(draws[0].classes)
    ]
    return replace(
        draws[0],
        classes=classes,
        mean=_mean_figures([draw.mean for draw in draws]),
        settings={**draws[0].settings, **settings},
        seconds=round(sum(draw.seconds for draw in draws), 2),
        reused=sum(draw.reused for draw in draws),
    )


def _mean_figures(draws: Sequence[Figures]) -> Figures:
    return {
        level: {metric: _mean_figure([draw[level][metric] for draw in draws]) for metric in metrics}
        for level, metrics in draws[0].items()
    }


def _mean_figure(figures: Sequence[Figure]) -> Figure:
    """Return mean and standard deviation; a single figure keeps its interval."""
    absent = next((figure for figure in figures if figure.value is None), None)
    if len(figures) == 1 or absent is not None:
        return absent or figures[0]
    values = [certain(figure.value) for figure in figures]
    return Figure(statistics.fmean(values), spread=statistics.stdev(values))
