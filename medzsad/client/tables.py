"""The tables of several scans that a server predicted, as ``medzsad predict`` writes them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medzsad.client.client import RemotePrediction
from medzsad.errors import MedzsadError, OutputNotWritable
from medzsad.results.tables import (
    FILES,
    LESION_COLUMNS,
    LESIONS,
    SCORE_COLUMNS,
    SCORES,
    Table,
    is_ours,
    scans_in,
)
from medzsad.storage.atomic import replacing


@dataclass(frozen=True, order=True)
class FailedScan:
    """A scan that has no results.

    Attributes:
        name: of the scan, or of the file or folder that holds none.
        reason: in one line, without folders: people name them after patients.
        fault: ``"input"``, or ``"internal"``: a bug, or a server that ended.
    """

    name: str
    reason: str
    fault: str

    @classmethod
    def of(cls, source: Path, name: str | None, error: MedzsadError) -> FailedScan:
        """Return the failure of an input; ``name`` is None where it holds no scan."""
        shown = name or source.name
        reason = str(error).replace(f"{source}/", "").replace(str(source), shown)
        reason = reason.replace(f"{source.parent}/", "") if source.parent.name else reason
        return cls(shown, " ".join(reason.split()), "input" if error.exit_code == 2 else "internal")


def write_tables(
    folder: Path, done: Iterable[RemotePrediction], failed: Iterable[FailedScan], model: str
) -> dict[str, Path]:
    """Write ``scores.csv`` and ``lesions.csv``; the column ``settings`` is empty, for it is the server's own.

    Args:
        folder: of the results.
        done: the scans that have results.
        failed: the others.
        model: that these were to be predicted with.

    Returns:
        The path of each table: ``scores`` and ``lesions``.

    Raises:
        OutputNotWritable: if one cannot be written, or would replace a file that medzsad did not write.
    """
    from medzsad import __version__

    scores, lesions = Table(SCORE_COLUMNS), Table(LESION_COLUMNS)
    for rank, result in enumerate(sorted(done, key=lambda result: (-result.score, result.name)), 1):
        scores.add(rank, *_score_fields(result))
        lesions.add_lesions(result.name, result.report)
    for scan in sorted(failed):
        cells = ("failed", *(None,) * 5, model, None, scan.reason, scan.fault, None, __version__)
        scores.add(None, scan.name, *cells)
    contents = {SCORES: scores.content(), LESIONS: lesions.content()}
    for name in contents:
        content = _content(folder / name)
        if content is not None and not is_ours(name, content):
            raise OutputNotWritable(
                f"{folder / name} was not written by medzsad and would be replaced; choose another folder"
            )
    try:
        for name, content in contents.items():
            with replacing(folder / name) as temporary:
                temporary.write_bytes(content)
    except OSError as error:
        raise _not_writable(folder, error) from error
    return {"scores": folder / SCORES, "lesions": folder / LESIONS}


def remove_outdated(folder: Path, names: set[str]) -> None:
    """Remove tables and index of an earlier run that list one of these scans: its results are others now.

    Raises:
        OutputNotWritable: if one cannot be removed.
    """
    for name in FILES:
        content = _content(folder / name)
        if content is not None and is_ours(name, content) and names & scans_in(name, content):
            try:
                (folder / name).unlink(missing_ok=True)
            except OSError as error:
                raise _not_writable(folder, error) from error


def _score_fields(result: RemotePrediction) -> tuple[Any, ...]:
    """Return the cells of ``SCORE_COLUMNS`` behind the first."""
    report, lesions = result.report, result.report["lesions"]
    volumes = [lesion["volume_ml"] for lesion in lesions if lesion["volume_ml"] is not None]
    return (
        result.name, "done", round(result.score, 6), len(lesions),
        round(max(volumes), 6) if volumes else None, round(report["threshold"]["value"], 6),
        report["scan"]["modality"], report["model"], f"{result.name}.json", None, None, None,
        report["versions"]["medzsad"],
    )  # fmt: skip


def _content(path: Path) -> bytes | None:
    """Return the content of a file; None if there is none."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _not_writable(path.parent, error) from error


def _not_writable(folder: Path, error: OSError) -> OutputNotWritable:
    return OutputNotWritable(
        f"{folder}: cannot write the tables ({error.strerror or error}); choose another folder"
    )
