"""``medzsad predict --server``: the same command line, with a server that computes."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medzsad.cli.options import given, in_options
from medzsad.cli.terminal import StatusLine
from medzsad.client import Client, RemotePrediction, ScanFiles, Watch, scan_files
from medzsad.client.tables import FailedScan, remove_outdated, write_tables
from medzsad.errors import BadInput, MedzsadError
from medzsad.results.ranking import DISCLAIMER, RankedRow, ranked_table

if TYPE_CHECKING:
    from collections.abc import Sequence

ASKED = (
    "normals", "any_modality", "organ", "class_name", "plane", "window", "modality", "threshold", "roi",
    "max_candidates", "min_volume", "all_candidates", "volume_rules", "slice_step", "first_pass", "series",
    "volume", "save_scan", "save_brain", "overlay", "report", "seg_nrrd", "dicom",
)  # fmt: skip
"""Options that a server takes, besides the model."""
ELSEWHERE = (
    "mutual", "features", "height_window", "clip_weights", "batch_size", "device", "precision", "backend",
    "with_identity", "server", "study", "headers", "store", "jobs", "ray", "shard", "retry_failed",
)  # fmt: skip
"""Options of this machine's own computing, or that need what a server is not told."""


@dataclass
class _Outcome:
    """What became of the scans: as ``medzsad predict`` says it."""

    done: list[tuple[ScanFiles, RemotePrediction]] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    failed_scans: list[FailedScan] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)
    tables: dict[str, Path] | None = None

    def fail(self, source: str, error: MedzsadError, name: str | None = None) -> None:
        """Count a failure; ``name`` is the scan's, if it is one."""
        self.failed.append((source, str(error)))
        self.codes.append(error.exit_code)
        self.failed_scans.append(FailedScan.of(Path(source), name, error))

    def tabulate(self, folder: Path, model: str | None) -> None:
        """Write the tables of several scans, or remove those that an earlier run left of a single one."""
        results = [result for _, result in self.done]
        remove_outdated(folder, {result.name for result in results})
        if results and len(results) + len(self.failed) > 1:
            model = model or results[0].report["model"]
            self.tables = write_tables(folder, results, self.failed_scans, model)

    def new_notes(self, result: RemotePrediction) -> list[str]:
        """Return the notes of a result that no other had before."""
        notes = result.report.get("notes", [])
        self.notes.update(notes)
        return [f"{result.name}: {note}" for note in notes if self.notes[note] == 1]

    def repeated(self) -> list[str]:
        """Return of how many more scans a note is."""
        more = ((note, count - 1) for note, count in self.notes.items() if count > 1)
        return [f"{count} more scan{'s' if count > 1 else ''}: {note}" for note, count in more]

    def document(self) -> dict[str, Any]:
        return {
            "scans": [
                {
                    "input": str(files.source),
                    "files": {kind: str(path) for kind, path in result.files.items()},
                    **result.report,
                }
                for files, result in self.done
            ],
            "failed": [{"input": source, "error": error} for source, error in self.failed],
            "tables": self.tables and {kind: str(path) for kind, path in self.tables.items()},
        }

    def lines(self, out: str) -> list[str]:
        if not self.done:
            return []
        rows = sorted((_row(result) for _, result in self.done), key=lambda row: (-row[1], row[0]))
        count = sum(len(result.files) for _, result in self.done)
        return [*ranked_table(rows), f"{count} files in {out}", DISCLAIMER]


def _row(result: RemotePrediction) -> RankedRow:
    lesions, timings = result.report["lesions"], result.report["timings_s"]
    volumes = [lesion["volume_ml"] for lesion in lesions if lesion["volume_ml"] is not None]
    return result.name, result.score, len(lesions), max(volumes, default=None), sum(timings.values())


def predict_remotely(
    context: click.Context,
    inputs: Sequence[str],
    out: str,
    url: str,
    token_file: str | None,
    options: dict[str, Any],
    *,
    as_json: bool,
    quiet: bool,
) -> None:
    """Let a server predict the scans, and write and print what ``medzsad predict`` does.

    Args:
        context: tells which options were given.
        inputs: files and folders.
        out: folder of the results.
        url, token_file: of the server.
        options: all of the command, by parameter.
        as_json, quiet: what is printed.

    Raises:
        MedzsadError: if the server cannot be used, or an option is not for it.
        click.exceptions.Exit: if a scan failed.
    """
    for name in ELSEWHERE:
        if given(context, name):
            option = next(p for p in context.command.params if p.name == name).opts[0]
            raise BadInput(f"{option} does not go with --server: the server decides that; leave it out.")
    if "://" in out:
        raise BadInput("--out URL does not go with --server; give a folder.")
    if not inputs:
        raise click.UsageError("Missing argument 'INPUT...'.")
    asked = {name: options[name] for name in ASKED if given(context, name)}
    if given(context, "model"):
        asked["model"] = options["model"]
    status, outcome = StatusLine(not quiet), _Outcome()
    status(f"asking {url}")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        client = Client(url, token_file=token_file)
    for warning in said:
        status.say(str(warning.message))
    scans, without = scan_files(inputs)
    for source, reason in without:
        outcome.fail(source, BadInput(reason))
    for number, scan in enumerate(scans, 1):
        place = f"{number}/{len(scans)} {scan.name}" if len(scans) > 1 else scan.name
        for note in _predict(client, scan, out, asked, outcome, _watch(status, place)):
            if not quiet:
                status.say(in_options(note))
    status("")
    outcome.tabulate(Path(out), asked.get("model"))
    for note in () if quiet else outcome.repeated():
        status.say(in_options(note))
    if as_json:
        text = json.dumps(outcome.document(), indent=2, allow_nan=False, ensure_ascii=False)
        click.echo(text)
    elif not quiet:
        for line in outcome.lines(out):
            click.echo(line)
    for source, error in outcome.failed:
        named = (
            error if error.startswith((f"{source} ", f"{source}:", f"{source},")) else f"{source}: {error}"
        )
        status.say(f"error: {in_options(named)}")
    if outcome.codes:
        raise click.exceptions.Exit(min(outcome.codes))


def _predict(
    client: Client, scan: ScanFiles, out: str, asked: dict[str, Any], outcome: _Outcome, watch: Watch
) -> list[str]:
    """Predict one scan, count it, and return its notes that are new."""
    try:
        result = client.predict(scan, out, watch=watch, **asked)
    except MedzsadError as error:
        outcome.fail(str(scan.source), error, scan.name)
        return []
    outcome.done.append((scan, result))
    return outcome.new_notes(result)


def _watch(status: StatusLine, place: str) -> Watch:
    return lambda phase, done, total: status(f"{phase} {place}" + (f" {done}/{total}" if total else ""))
