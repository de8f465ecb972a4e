"""The models that a server offers, and what is said of each."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medzsad.errors import ModelNotReady
from medzsad.settings import DetectorSpec
from medzsad.storage import cache
from medzsad.zoo.catalogue import WITHOUT_CLIP, ZooEntry, catalogue, find_entry
from medzsad.zoo.fetch import require_ready

if TYPE_CHECKING:
    from medzsad.detectors.base import AnomalyDetector

MINI = "mini"
_LARGE_CLIP = "images, and volumes where there is time or a GPU: every slice goes through a large CLIP"
_FREE = "comparisons, and organs that can be named: nothing was trained, its texts tell what is normal"
USES = {
    MINI: "a first look at CT and MR volumes and at images, on any computer: the quickest",
    "headclip": _LARGE_CLIP,
    "anomalyclip": _LARGE_CLIP,
    "adaclip": _LARGE_CLIP,
    "winclip": _FREE,
    "clip": _FREE,
}
"""By method, what a model is for."""
_TRIVIAL = "comparisons only: a trivial reference"


@dataclass(frozen=True)
class OfferedModel:
    """A model that clients may choose.

    Attributes:
        name: what they call it.
        source: for :func:`medzsad.load_detector`.
        about: what it is, in a line.
        use: what it is for.
    """

    name: str
    source: str
    about: str
    use: str

    def document(self) -> dict[str, Any]:
        """JSON-serialisable, without the source, which may be a path."""
        return {"name": self.name, "about": self.about, "for": self.use}


def offered_models(names: Iterable[str] = ()) -> dict[str, OfferedModel]:
    """Return the models to offer, by name; the first is the default.

    Args:
        names: of the zoo, checkpoints or folders of training runs; by default all of the zoo that are ready
            and not trivial.

    Raises:
        ModelNotReady: if one is unknown, or its weights are missing.
    """
    chosen = list(names)
    if not chosen:
        ready = (
            entry
            for entry in catalogue().models.values()
            if (entry.method == MINI or entry.method not in WITHOUT_CLIP)
            and all(cache.is_ready(part) for part in entry.parts)
        )
        models = [_of_zoo(entry) for entry in ready]
    else:
        models = [_named(name) for name in chosen]
    return {model.name: model for model in models}


def _named(name: str) -> OfferedModel:
    from medzsad.zoo.loading import run_adapter

    adapter = run_adapter(name)
    if adapter is not None:
        run = adapter.parent.resolve()
        return OfferedModel(run.name, str(run), "trained here", "what it was trained for")
    if name.endswith(".safetensors"):
        path = Path(name).expanduser().resolve()
        if not path.is_file():
            raise ModelNotReady(f"{path}: no such checkpoint file")
        return OfferedModel(path.stem, str(path), "a checkpoint of this server", "what it was trained for")
    entry = find_entry(name)
    require_ready(entry)
    return _of_zoo(entry)


def _of_zoo(entry: ZooEntry) -> OfferedModel:
    return OfferedModel(entry.name, entry.name, entry.title, describe_use(entry))


def describe_use(entry: ZooEntry) -> str:
    """Return what a model of the zoo is for."""
    return USES.get(entry.method, _TRIVIAL)


class DetectorPool:
    """Detectors in memory: the most recently used ones stay. For one thread.

    Args:
        size: how many stay.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._detectors: OrderedDict[DetectorSpec, AnomalyDetector] = OrderedDict()

    def get(self, spec: DetectorSpec) -> AnomalyDetector:
        """Return a detector, loaded now unless it is there.

        Raises:
            ModelNotReady: if it cannot be loaded.
        """
        detector = self._detectors.pop(spec, None)
        if detector is None:
            while len(self._detectors) >= self._size:  # before, so that both need not fit
                self._detectors.popitem(last=False)
            from medzsad.zoo.loading import load_spec

            detector = load_spec(spec)
        self._detectors[spec] = detector
        return detector
