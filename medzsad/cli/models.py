"""``medzsad models``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from medzsad.cli.options import clip_option, json_option, organ_option, tell
from medzsad.cli.terminal import show_log


@click.group()
def models() -> None:
    """The detectors by name, and the weights they need.

    Weights are kept in the cache folder: MEDZSAD_CACHE, else the platform's own. A catalogue of your own
    (MEDZSAD_CATALOGUE) is merged over the one that ships with medzsad; see docs/models.md.
    """


@models.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List all models and what each needs."""
    from medzsad.cli.model_tables import listed, listing

    if as_json:
        click.echo(json.dumps(listed(), indent=2))
    else:
        for line in listing():
            click.echo(line)


@models.command()
@click.argument("name", metavar="NAME")
@json_option
def info(name: str, as_json: bool) -> None:
    """Show all that is known of the model NAME: parts, licences, hashes, training data, paper, settings.

    NAME may also be the folder of a training run, or a medzsad checkpoint.
    """
    from medzsad.cli.model_tables import described, description

    if as_json:
        click.echo(json.dumps(described(name), indent=2))
    else:
        for line in description(name):
            click.echo(line)


@models.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("-q", "--quiet", is_flag=True, help="No progress bar.")
def fetch(names: tuple[str, ...], quiet: bool) -> None:
    """Make models ready: download what is missing, verify it and convert it.

    A download that was cut goes on where it stopped. On a machine without a network, put the files into the
    cache's folder "incoming" (the error message says which, and under which names) and run this again.
    """
    from medzsad.zoo.catalogue import catalogue, find_entry
    from medzsad.zoo.fetch import prepare

    show_log()
    known = catalogue()
    jobs = []
    for name in names:  # all names are checked before the first download
        if name in known.models:
            jobs.append((name, [known.files[part] for part in known.models[name].parts]))
        elif name in known.files:
            jobs.append((name, [known.files[name]]))
        else:
            find_entry(name)
    for name, files in jobs:
        done = prepare(name, files, progress=None if quiet else _Bar, say=tell)
        if name in known.models:
            click.echo(f"{name}: ready" + ("" if done else " already"))
        else:
            click.echo(f"{name}: {'in the cache' if done else 'in the cache already'}")


@models.command("import")
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--as", "name", required=True, metavar="NAME", help="A name of the catalogue, or a new one.")
@click.option("--backbone", metavar="NAME", help="For a new adapter: the CLIP weights it was trained on.")
@click.option("--architecture", metavar="NAME", help="For new CLIP weights: open_clip's name of the model.")
@click.option("--unverified", is_flag=True, help="Accept a file whose hash is not the catalogue's.")
@click.option(
    "--map",
    "mapping",
    multiple=True,
    metavar="THEIRS=OURS",
    help="HeadCLIP's weights in a layout that is not recognised: which tensor is what. Repeatable.",
)
@click.option(
    "--head-parametrisation",
    type=click.Choice(["raw", "softmax", "sigmoid"]),
    default="raw",
    show_default=True,
    help="What HeadCLIP's head weights are in the file: factors, or before a softmax or sigmoid.",
)
def import_(file: Path, name: str, **options: Any) -> None:
    """Make a local file the weights NAME; a new NAME becomes a new model.

    Recognised by their content are weights of HeadCLIP, AnomalyCLIP, AdaCLIP, OpenAI's CLIP, open_clip and
    DINOv2, and medzsad checkpoints. Nothing in the file is run. Where a file is not recognised, its tensors
    are listed; say which is what with --map (see docs/models.md).
    """
    from medzsad.zoo.user_models import import_file

    done = import_file(file, name, **options)
    state = "verified" if done.verified else f"not verified, sha256 {done.sha256}"
    click.echo(f"{done.file.name}: imported as {done.file.kind} weights ({state})")
    for note in done.notes:
        click.echo(f"  {note}")
    if done.models:
        click.echo(f"used by: {', '.join(done.models)}")


@models.command()
@click.argument("name", metavar="NAME")
def remove(name: str) -> None:
    """Remove the weights that only NAME needs; name a weight file itself to remove it in any case."""
    from medzsad.storage.cache import in_megabytes
    from medzsad.zoo.user_models import remove as remove_model

    done = remove_model(name)
    for file in done.files:
        click.echo(f"removed {file}")
    for file, users in done.kept.items():
        click.echo(f"kept {file}, also needed by {', '.join(users)}")
        click.echo(f"  to remove it, too: medzsad models remove {file}")
    if done.unregistered:
        click.echo(f"forgotten: {', '.join(done.unregistered)}")
    if done.broken:
        click.echo(f"no longer ready: {', '.join(done.broken)}")
    if done.freed:
        click.echo(f"freed {in_megabytes(done.freed)}")
    elif not done.files and not done.kept and not done.unregistered:
        click.echo(f"{name}: nothing in the cache")


@models.command("time")
@click.argument("name", metavar="NAME")
@click.option("--batch", type=click.IntRange(min=1), metavar="N", help="Images at once [default: by size].")
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, max=3600),
    default=4.0,
    show_default=True,
    help="For each figure, at least.",
)
@clip_option
@organ_option
@json_option
@click.option("-q", "--quiet", is_flag=True, help="Do not say what is being measured.")
def time_(name: str, as_json: bool, quiet: bool, **options: Any) -> None:
    """Measure what computes the model NAME fastest on this CPU, for --backend auto.

    Every backend and precision that is installed is run on made images, and compared with PyTorch in fp32;
    the fastest whose maps and scores are within the bounds is remembered for this CPU and these versions.
    A large model takes some minutes, and graphs that are missing are made. See docs/backends.md.
    """
    from medzsad.cli.model_tables import time_facts, time_lines
    from medzsad.zoo.benchmark import measure_backends

    say = None if quiet else tell
    show_log(say)
    record = measure_backends(name, say=say, **options)
    if as_json:
        click.echo(json.dumps(time_facts(record), indent=2))
    else:
        for line in time_lines(record):
            click.echo(line)


class _Bar:
    """A progress bar of one file, made when the first bytes come; none where stderr is not a terminal."""

    def __init__(self, file: Any) -> None:
        self.name = file.name
        self.bar: Any = None  # tqdm's

    def __call__(self, done: int, total: int | None) -> None:
        if self.bar is None:
            from tqdm import tqdm

            self.bar = tqdm(
                total=total, desc=self.name, unit="B", unit_scale=True, disable=None, file=sys.stderr
            )
        self.bar.total = total
        self.bar.update(done - self.bar.n)
        if total is not None and done >= total:
            self.bar.close()
