"""``medzsad datasets``."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medzsad.cli.options import json_option

if TYPE_CHECKING:
    from medzsad.datasets.catalog import DatasetEntry
    from medzsad.datasets.checking import CheckReport

WIDTH = 80
SHOWN = 10  # problems of a kind


@click.group()
def datasets() -> None:
    """The data sets by name: where to get them, how they must lie on disk, whether a copy is whole.

    A data set is looked for in --root DIR, or in the folder that MEDZSAD_DATA names; see docs/datasets.md.
    """


@datasets.command("list")
@click.option(
    "--data",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Show which of them are found in DIR, a folder of data sets.",
)
@json_option
def list_(data: Path | None, as_json: bool) -> None:
    """List all data sets; with --data, which of them lie in DIR under their usual names."""
    from medzsad.datasets.catalog import entries

    if data is not None:
        _list_found(data, as_json)
        return
    if as_json:
        click.echo(json.dumps([_described(entry) for entry in entries().values()], indent=2))
        return
    click.echo(_row("name", "domain", "level", "classes", "title"))
    for entry in entries().values():
        number = str(len(entry.classes) or "any")
        click.echo(_row(entry.name, entry.domain, entry.level, number, entry.title))


@datasets.command()
@click.argument("name", metavar="NAME")
@json_option
def info(name: str, as_json: bool) -> None:
    """Show where to get the data set NAME, its licence, and the folders that it is expected in."""
    from medzsad.datasets.catalog import expected, find_entry

    entry = find_entry(name)
    if as_json:
        click.echo(json.dumps(_described(entry), indent=2))
        return
    for line in _facts(entry):
        click.echo(line)
    click.echo("\nexpected folder (DIR is --root, or NAME below it or below MEDZSAD_DATA):\n")
    click.echo(textwrap.indent(expected(entry, all_layouts=True), "  "))


@datasets.command()
@click.argument("name", metavar="NAME")
@click.option(
    "--root",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="The data set's folder, or one that holds it [default: MEDZSAD_DATA].",
)
@click.option(
    "--split",
    default="test",
    show_default=True,
    type=click.Choice(["test", "train", "valid"]),
    help="Which part.",
)
@click.option("--channel", metavar="NAME", help="Of volumes: which of a case's images, e.g. flair.")
@json_option
@click.option("-q", "--quiet", is_flag=True, help="No progress bar.")
def check(name: str, root: Path | None, split: str, channel: str | None, as_json: bool, quiet: bool) -> None:
    """Read every file of the data set NAME: count, and say what is missing, wrong, broken or twice there.

    Exit code: 0 nothing is wrong (exact duplicates with the same label and unused masks are only told), 2
    something is, or the data set is not there.
    """
    from medzsad.datasets.checking import check_dataset

    with _bar(quiet) as step:
        report = check_dataset(name, root, split=split, channel=channel, progress=step)
    if as_json:
        click.echo(json.dumps(report.as_dict(), indent=2))
    else:
        for line in _report(report):
            click.echo(line)
    if not report.ok:
        raise click.exceptions.Exit(2)


def _row(name: str, domain: str, level: str, classes: str, title: str) -> str:
    return f"{name:<20}{domain:<11}{level:<6}{classes:>7}  {title}"[:WIDTH].rstrip()


def _list_found(data: Path, as_json: bool) -> None:
    from medzsad.datasets.catalog import entries
    from medzsad.datasets.finding import find_sets

    wanted = [entry for entry in entries().values() if entry.classes]
    found = find_sets(data, wanted)
    if as_json:
        parts = ("name", "layout", "classes", "is_part")
        listed = [
            {
                **_described(entry),
                "found": (one := found[entry.name]) and {part: getattr(one, part) for part in parts},
            }
            for entry in wanted
        ]
        click.echo(json.dumps(listed, indent=2))
        return
    click.echo(f"{'name':<20}{'domain':<11}{'level':<6}  found")
    for entry in wanted:
        one = found[entry.name]
        click.echo(f"{entry.name:<20}{entry.domain:<11}{entry.level:<6}  {one.summary if one else 'no'}")
    papers = [name for name, entry in entries().items() if entry.paper]
    there = sum(found[name] is not None for name in papers)
    click.echo(f"{there} of the {len(papers)} sets of medzsad evaluate --suite paper17")


def _described(entry: DatasetEntry) -> dict[str, Any]:
    return {**asdict(entry), "layouts": [name for group in entry.layouts for name in group]}


def _facts(entry: DatasetEntry) -> Iterator[str]:
    facts = {
        "name": ", also ".join((entry.name, ", ".join(entry.aliases))) if entry.aliases else entry.name,
        "title": entry.title,
        "domain": entry.domain,
        "level": entry.level,
        "classes": ", ".join(entry.classes) or "as the folders say",
        "class name": "; ".join(
            (
                entry.class_name or "the class",
                *(f"{method} says {name}" for method, name in entry.names.items()),
            )
        ),
        "organ": entry.organ,
        "channel": entry.channel and f"{entry.channel} by default",
        "from": entry.source,
        "licence": entry.licence,
        "benchmark": "one of the 17 sets of the HeadCLIP paper" if entry.paper else None,
        "note": entry.note,
    }
    for label, text in facts.items():
        if text:
            yield from textwrap.wrap(
                f"{label:<12}{text}",
                WIDTH,
                subsequent_indent=" " * 12,
                break_long_words=False,
                break_on_hyphens=False,
            )


def _report(report: CheckReport) -> Iterator[str]:
    from medzsad.datasets.reading import KINDS, relative_id

    samples = report.samples
    yield f"{samples.name}: layout {samples.layout}, {samples.split} split, in {samples.root}"
    width = max(len("class"), *(len(name) for name in report.counts))
    yield f"{'class':<{width}}  normal  anomalous  kinds"
    for name, kinds in report.counts.items():
        normal = kinds.get("good", 0)
        others = {kind: number for kind, number in kinds.items() if kind != "good"}
        listed = ", ".join(f"{kind} {number}" for kind, number in others.items())
        yield f"{name:<{width}}  {normal:>6}  {sum(others.values()):>9}  {listed}".rstrip()
    what = "volumes" if samples.is_volumetric else "images"
    masks = "labels" if samples.is_volumetric else "masks"
    yield (
        f"{len(samples)} {what}, {report.normal} normal, {report.anomalous} anomalous, "
        f"{report.masks} {masks}; figures at {samples.level} level"
    )
    for note in samples.notes:
        yield f"note: {note}"
    for kind, (words, is_error) in KINDS.items():
        problems = report.of_kind(kind)
        if problems:
            yield f"{'error' if is_error else 'told'}: {words}: {len(problems)}"
            for problem in problems[:SHOWN]:
                yield f"  {relative_id(problem.path, samples.root)}: {problem.message}"
            if len(problems) > SHOWN:
                yield f"  and {len(problems) - SHOWN} more (--json lists all)"
    if not report.problems:
        yield "nothing is wrong"


@contextmanager
def _bar(quiet: bool) -> Iterator[Callable[[], None] | None]:
    """What counts on the terminal when called; None where stderr is no terminal."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from tqdm import tqdm

    with tqdm(unit=" files", leave=False) as bar:
        yield lambda: bar.update() and None
