"""What became of one scan: a row of the table of scores."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from medzsad.batch.manifest import ScanItem
from medzsad.batch.store import FLAT, place_of
from medzsad.errors import MedzsadError

if TYPE_CHECKING:
    from medzsad.results.prediction import ScanPrediction

DONE, FAILED = "done", "failed"
# Whose fault a failure is, and the exit code for it.
EXIT_CODES = {"input": 2, "internal": 1, "crash": 1}


def _version() -> str:
    from medzsad import __version__

    return __version__


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table of scores, without patient data.

    Attributes:
        scan: the scan's id.
        status: ``"done"`` or ``"failed"``.
        score: volume score in [0, 1].
        lesions: number of lesion candidates.
        largest_ml: volume of the largest; None without one, or without geometry.
        threshold: of the map, in [0, 1].
        modality: of the scan.
        model: the detector's name.
        settings: digest of the settings that determine the results.
        seconds: from reading to writing, on the worker.
        attempts: how many workers began it; more than one where workers were lost at it.
        error: why it failed, in one line.
        fault: ``"input"``, ``"internal"`` (a bug, or a disk that failed) or ``"crash"`` (workers died at it).
        results: folder of its files, relative to the table's.
        finished: when, UTC, ISO 8601.
        version: of medzsad.
    """

    scan: str
    status: str
    score: float | None = None
    lesions: int | None = None
    largest_ml: float | None = None
    threshold: float | None = None
    modality: str | None = None
    model: str
    settings: str
    seconds: float
    attempts: int
    error: str | None = None
    fault: str | None = None
    results: str | None = None
    finished: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="milliseconds"))
    version: str = field(default_factory=_version)

    @classmethod
    def checked(cls, fields: Mapping[str, Any]) -> Row:
        """Return the row of fields that were stored.

        Raises:
            TypeError, ValueError: if one is missing, unknown, of another type, or no text to be written.
        """
        if set(fields) != set(COLUMNS):
            raise TypeError("other columns")
        row = cls(**fields)
        for name, kind in COLUMNS.items():
            value = getattr(row, name)
            fits = (kind, int) if kind is float else kind
            if value is None and name in OPTIONAL:
                continue
            if isinstance(value, bool) or not isinstance(value, fits):
                raise TypeError(f"{name} is {value!r}")
            if isinstance(value, int) and kind is int and abs(value) > LARGEST:
                raise ValueError(f"{name} is {value}")
            if isinstance(value, str):
                value.encode()
        return row


_HINTS = get_type_hints(Row)
OPTIONAL = {name for name, hint in _HINTS.items() if type(None) in get_args(hint)}
COLUMNS: dict[str, type] = {name: (get_args(hint) or (hint,))[0] for name, hint in _HINTS.items()}
"""Type of each column, where it has a value."""
LARGEST = 2**31 - 1


def is_sound(scan: object, status: object, score: object, results: object) -> bool:
    """Return whether these columns of a row are what a run writes, and not damaged or somebody else's.

    Args:
        scan, status, score, results: of :class:`Row`, of any type.
    """
    if not isinstance(scan, str) or not scan:
        return False
    if status == FAILED:
        return score is None and results is None
    return (
        status == DONE
        and isinstance(score, int | float)
        and not isinstance(score, bool)
        and 0 <= score <= 1
        and results in (place_of(scan), FLAT)
    )


def done_row(item: ScanItem, prediction: ScanPrediction, results: str, about: dict[str, Any]) -> Row:
    """Return the row of a prediction.

    Args:
        item: the scan.
        prediction: of it.
        results: folder of its files, relative to the table's.
        about: the row's model, settings, seconds and attempts.
    """
    volumes = [lesion.volume_ml for lesion in prediction.lesions if lesion.volume_ml is not None]
    return Row(
        scan=item.id,
        status=DONE,
        score=round(prediction.score, 6),
        lesions=len(prediction.lesions),
        largest_ml=round(max(volumes), 6) if volumes else None,
        threshold=round(float(prediction.threshold), 6),
        modality=str(prediction.scan.modality),
        results=results,
        **about,
    )


def failed_row(item: ScanItem, error: Exception, about: dict[str, Any], hide: Callable[[str], str]) -> Row:
    """Return the row of a failure; ``hide`` takes out of the reason what must not be told."""
    is_input = isinstance(error, MedzsadError)
    text = str(error) if is_input else f"{type(error).__name__}: {error}"
    return failure(item, hide(text), "input" if is_input else "internal", about)


def failure(item: ScanItem, reason: str, fault: str, about: dict[str, Any]) -> Row:
    """Return the row of a scan without a result."""
    return Row(scan=item.id, status=FAILED, error=" ".join(shown(reason).split()), fault=fault, **about)


def shown(value: object) -> str:
    """As text that can be encoded, whatever bytes a file name has."""
    return str(value).encode("utf-8", "backslashreplace").decode("utf-8")


def without_names(text: str, item: ScanItem, hidden: Iterable[Path]) -> str:
    """Return a text without the input's name and folder, and those ``hidden``: the id is enough.

    People name files and folders after patients, and a study's UID leads to one.
    """
    source = item.source
    places = [(f"{source}{os.sep}", ""), (source, item.id)]
    if item.is_remote:
        rest = source.partition("://")[2]
        places += [(f"{scheme}://{rest}", item.id) for scheme in ("http", "https")]
    else:
        places.append((os.path.dirname(source) + os.sep, ""))
    for folder in hidden:
        places += [(f"{folder}{os.sep}", ""), (str(folder), item.id)]
    for place, instead in places:
        text = text.replace(place, instead)
    if not item.is_remote:
        name = re.escape(os.path.basename(source))
        text = re.sub(rf"(?<![\w.-]){name}(?![\w-])", lambda _: item.id, text)
    return text
