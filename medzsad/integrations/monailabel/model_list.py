"""Which models a server offers. Nothing is loaded to know that."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from medzsad.errors import ModelNotReady
from medzsad.integrations.monailabel.versions import NAME, Version, Versions, digest_of, is_version_name
from medzsad.storage import cache
from medzsad.zoo.catalogue import ZooEntry, catalogue

REFERENCES = ("brightness", "darkness", "asymmetry")
"""Methods that are trivial: offered only where they are named."""


@dataclass(frozen=True)
class OfferedModel:
    """A model that a client may choose.

    Attributes:
        name: what the client calls it.
        source: for :func:`medzsad.load_detector`.
        title: one line for people.
        version: changes whenever its weights do.
        clip_weights: for :func:`medzsad.load_detector`.
        trained_here: whether it is an adapter of this app.
    """

    name: str
    source: str
    title: str
    version: str
    clip_weights: str | None = None
    trained_here: bool = False


class ModelList:
    """The models, in the order in which clients see them: named, or of the zoo, then trained here.

    Args:
        names: what to offer of the zoo, and checkpoints and folders of runs; empty for the whole zoo, as far
            as it is ready and not trivial. What was trained here is always offered.
        also: a further name, offered though it be trivial: what scans are scored with.
        versions: what was trained here; looked up anew each time.

    Raises:
        ModelNotReady: if a name is unknown, or its weights are missing.
    """

    def __init__(self, names: list[str], versions: Versions, *, also: str = "") -> None:
        self.versions = versions
        given = [name for name in names if not is_version_name(name)]
        self._given = _named(given) if names else _ready(also)
        self._trained_first = bool(names) and names[0] not in given

    def current(self) -> dict[str, OfferedModel]:
        """Return the models by name, as of now."""
        trained = [_trained(version) for version in self.versions.all()]
        if trained:
            newest = trained[0]
            alias = f"HeadCLIP, trained on the labels submitted here ({newest.name})"
            trained.insert(
                0, OfferedModel(NAME, newest.source, alias, newest.version, newest.clip_weights, True)
            )
        groups = (trained, self._given) if self._trained_first else (self._given, trained)
        # An adapter trained here goes before a model of the zoo that happens to have its name.
        models = {model.name: model for group in groups for model in group}
        return models | {model.name: model for model in trained}


def _ready(also: str) -> list[OfferedModel]:
    return [
        _from_zoo(entry)
        for entry in catalogue().models.values()
        if (entry.method not in REFERENCES or entry.name == also)
        and all(cache.is_ready(part) for part in entry.parts)
    ]


def _named(names: list[str]) -> list[OfferedModel]:
    from medzsad.zoo.catalogue import find_entry
    from medzsad.zoo.fetch import require_ready
    from medzsad.zoo.loading import run_adapter

    models = []
    for name in names:
        adapter = run_adapter(name)
        if adapter is not None:
            models.append(_from_file(adapter.parent.resolve().name, Path(name), adapter))
        elif name.endswith(".safetensors"):
            path = Path(name).expanduser()
            if not path.is_file():
                raise ModelNotReady(f"{path}: no such checkpoint file")
            models.append(_from_file(path.stem, path, path))
        else:
            entry = find_entry(name)
            require_ready(entry)
            models.append(_from_zoo(entry))
    return models


def _from_zoo(entry: ZooEntry) -> OfferedModel:
    if entry.path is not None:
        version = digest_of(entry.path)
    else:
        facts = [cache.read_facts(part) or {} for part in entry.parts]
        version = "+".join(str(fact.get("source_sha256", "unknown"))[:12] for fact in facts)
    return OfferedModel(entry.name, entry.name, entry.title, version or _own_version())


def _from_file(name: str, source: Path, file: Path) -> OfferedModel:
    return OfferedModel(name, str(source.expanduser().resolve()), f"Checkpoint {name}", digest_of(file))


def _trained(version: Version) -> OfferedModel:
    labels = version.record.get("labels")
    return OfferedModel(
        version.name,
        str(version.folder),
        f"HeadCLIP, trained on {labels} labels submitted here",
        str(version.record.get("digest")),
        version.record.get("clip_weights"),
        True,
    )


def _own_version() -> str:
    from medzsad import __version__

    return __version__
