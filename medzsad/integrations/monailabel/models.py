"""Which models a server offers: of the zoo, by name, and the adapters that were trained here."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medzsad import __version__
from medzsad.detectors.checkpoint import is_checkpoint_name
from medzsad.errors import ModelNotReady, OutputNotWritable
from medzsad.storage import cache
from medzsad.storage.atomic import replacing
from medzsad.storage.hashing import hash_files
from medzsad.zoo.catalogue import ZooEntry, catalogue, find_entry
from medzsad.zoo.fetch import require_ready
from medzsad.zoo.loading import RUN_ADAPTER, run_adapter

NAME = "headclip"
"""The model's name; it stands for the newest version."""
RECORD = "record.json"
_FOLDER = re.compile(NAME + r"-(\d{4,})")


@dataclass(frozen=True)
class Version:
    """A trained adapter.

    Attributes:
        name: of the model: ``headclip-0001``, ...
        folder: of its training run.
        record: what is written down about it: ``created``, ``labels``, ``clip_weights``, ``digest``, ...
    """

    name: str
    folder: Path
    record: dict[str, Any]


class Versions:
    """The trained adapters in ``APP/model/headclip``.

    Args:
        app_dir: the app folder.
    """

    def __init__(self, app_dir: Path) -> None:
        self.folder = app_dir / "model" / NAME

    def all(self) -> list[Version]:
        """All versions, the newest first."""
        found = []
        for number, folder in sorted(self._folders(), reverse=True):
            try:
                record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue  # still trained, or stopped
            found.append(Version(f"{NAME}-{number:04d}", folder, record))
        return found

    def newest(self) -> Version | None:
        """Return the newest version; None before the first training."""
        return next(iter(self.all()), None)

    def latest_run(self) -> Path | None:
        """Return the folder of the newest training, finished or not."""
        return max(self._folders(), default=(0, None))[1]

    def begin(self) -> Path:
        """Return the folder of a new version; not made yet. What stopped trainings left behind is deleted.

        Only to be called while no other training runs.

        Raises:
            OutputNotWritable: if the place cannot be written.
        """
        for _, folder in self._folders():
            if not (folder / RECORD).is_file():
                shutil.rmtree(folder, ignore_errors=True)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputNotWritable(
                f"{self.folder}: cannot be written ({error.strerror or error})"
            ) from error
        number = max((number for number, _ in self._folders()), default=0) + 1
        return self.folder / f"{NAME}-{number:04d}"

    def publish(self, folder: Path, record: dict[str, Any]) -> Version:
        """Make a trained folder a version; the record gets the adapter's digest.

        Raises:
            ModelNotReady: if it holds no adapter.
            OutputNotWritable: if its record cannot be written.
        """
        record = {**record, "digest": digest_of(folder / RUN_ADAPTER)}
        try:
            with replacing(folder / RECORD) as temporary:
                temporary.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise OutputNotWritable(f"{folder}: cannot be written ({error.strerror or error})") from error
        return Version(folder.name, folder, record)

    def _folders(self) -> list[tuple[int, Path]]:
        if not self.folder.is_dir():
            return []
        matches = [(_FOLDER.fullmatch(path.name), path) for path in self.folder.iterdir()]
        return [(int(match[1]), path) for match, path in matches if match]


def is_version_name(name: str) -> bool:
    """Whether a model of that name may come from a training here: ``headclip``, ``headclip-0001``, ..."""
    return name == NAME or _FOLDER.fullmatch(name) is not None


def digest_of(path: Path) -> str:
    """Return the beginning of a file's sha256.

    Raises:
        ModelNotReady: if the file cannot be read.
    """
    return hash_files(path, kind=ModelNotReady)[:12]


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
    models = []
    for name in names:
        adapter = run_adapter(name)
        if adapter is not None:
            models.append(_from_file(adapter.parent.resolve().name, Path(name), adapter))
        elif is_checkpoint_name(name):
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
    return OfferedModel(entry.name, entry.name, entry.title, version or __version__)


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
