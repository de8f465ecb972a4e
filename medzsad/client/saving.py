"""A server's results to a folder, under the scan's name here: all of them, or none."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medzsad.errors import BadInput, OutputNotWritable
from medzsad.scans.own_results import ENDINGS, may_be_replaced
from medzsad.storage.atomic import PREFIX, sweep
from medzsad.storage.text_files import parse_json

NAME = "scan"
"""What every scan is called by a server."""


@dataclass(frozen=True)
class RemoteFile:
    """A result that a server has.

    Attributes:
        kind: such as ``"anomaly"``.
        name: there, relative, with ``/``.
    """

    kind: str
    name: str

    def renamed(self, name: str) -> Path:
        """Return where it belongs in a folder of results.

        Raises:
            BadInput: if the server's name of it is none that a result has.
        """
        parts = self.name.split("/")
        plain = all(part not in ("", ".", "..") and not set(part) & set("\\:\0") for part in parts)
        if not plain or not self.name.startswith(NAME) or len(parts) > 2:
            raise BadInput(f"the server has a result called {self.name!r}, which medzsad has not")
        parts = [f"{name}{part.removeprefix(NAME)}" if part.startswith(NAME) else part for part in parts]
        return Path(*parts)


def save_results(
    files: list[RemoteFile], fetch: Callable[[str, Path], None], folder: Path, name: str
) -> tuple[dict[str, Path], dict[str, Any]]:
    """Write results to a folder, as ``medzsad predict`` does.

    Args:
        files: of one scan.
        fetch: writes the result of a name to a path.
        folder: is made where missing.
        name: of the scan here.

    Returns:
        The paths by kind, of several files of one kind their folder; and the report.

    Raises:
        BadInput: if a result cannot be had.
        OutputNotWritable: if the folder cannot be written, or a file in it is not medzsad's.
    """
    targets = {file: file.renamed(name) for file in files}
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        sweep(folder)
        tops = sorted({target.parts[0] for target in targets.values()})
        for top in tops:
            if (folder / top).exists() and not may_be_replaced(folder / top):
                raise OutputNotWritable(
                    f"{folder / top} was not written by medzsad and would be replaced; choose another folder"
                )
        with tempfile.TemporaryDirectory(dir=folder, prefix=PREFIX) as temporary:
            staging = Path(temporary)
            report: dict[str, Any] = {}
            for file, target in targets.items():
                (staging / target).parent.mkdir(exist_ok=True)
                fetch(file.name, staging / target)
                if file.kind == "json":
                    report = _renamed_report(staging / target, name)
            stale = [f"{name}{end}" for end in ENDINGS if f"{name}{end}" not in tops]
            for old in (*tops, *stale):
                if (folder / old).exists() and (old in tops or may_be_replaced(folder / old)):
                    os.replace(folder / old, staging / f"{old}.old")
            for top in tops:
                os.replace(staging / top, folder / top)
    except BaseException as error:
        if missing:
            shutil.rmtree(missing[-1], ignore_errors=True)
        if isinstance(error, OSError):
            raise OutputNotWritable(
                f"{folder}: cannot write the results ({error.strerror or error}); choose another folder"
            ) from error
        raise
    paths = {file.kind: folder / (target.parts[0]) for file, target in targets.items()}
    return paths, report


def _renamed_report(path: Path, name: str) -> dict[str, Any]:
    """Give a report the scan's name, and return it."""
    report = parse_json(path.read_bytes(), path.name)
    if not isinstance(report, dict):
        raise BadInput("the server's report is no report of medzsad")
    report["name"] = name
    path.write_text(
        json.dumps(report, indent=2, allow_nan=False, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    return report
