"""The adapters that were trained in an app: one folder each, numbered, none ever overwritten.

The folders are the only register: the server, its background tasks and the next start all read them. One
counts once its ``record.json`` is there, which is written last: no adapter is seen before it is whole.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medzsad.errors import ModelNotReady, OutputNotWritable
from medzsad.storage.atomic import replacing
from medzsad.zoo.loading import RUN_ADAPTER

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
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    except OSError as error:
        raise ModelNotReady(f"{path}: cannot be read ({error.strerror or error})") from error
