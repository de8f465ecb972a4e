"""``medzsad train``."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from medzsad.cli.options import device_option, threads_option
from medzsad.cli.terminal import show_log
from medzsad.errors import BadInput


@click.command()
@click.option(
    "-c",
    "--config",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE|NAME",
    help="The recipe: a YAML file, or the name of one that comes with medzsad, such as smoke.",
)
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="Folder of the run [default: runs/NAME].",
)
@click.option(
    "--data",
    "roots",
    multiple=True,
    metavar="NAME=DIR",
    help="The folder of a data set of the recipe; may be repeated [default: that of MEDZSAD_DATA].",
)
@click.option("--clip-weights", metavar="TAG|FILE", help="CLIP weights instead of the recipe's.")
@threads_option
@device_option
@click.option("--fresh", is_flag=True, help="Start over, whatever the folder holds of a run.")
@click.option("--dry-run", is_flag=True, help="Print the whole recipe and count the data; train nothing.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
def train(
    config: Path,
    out: Path | None,
    roots: tuple[str, ...],
    clip_weights: str | None,
    device: str,
    fresh: bool,
    dry_run: bool,
    quiet: bool,
    overrides: tuple[str, ...],
) -> None:
    """Train a detector by a recipe, or go on with a training that was stopped.

    KEY=VALUE changes the recipe: optimiser.lr=1e-4, data.0.limit=50. Ctrl-C finishes the step and stores
    the state; the same command goes on from there, and ends with the same weights as without the break. The
    folder RUN is a model: medzsad predict SCAN --model RUN. On several GPUs: torchrun --nproc-per-node 4 -m
    medzsad train ...

    Exit code: 0 done, 130 stopped, 2 bad input or options, 1 internal error; torchrun's own is 1 for all of
    the latter.
    """
    from medzsad.training.recipe import read_recipe

    recipe = read_recipe(config, overrides).with_roots(_roots(roots))
    folder = out if out is not None else Path("runs") / recipe.name

    if dry_run:
        from medzsad.training.sources import count_data

        click.echo(recipe.as_yaml(), nl=False)
        for line in count_data(recipe):
            click.echo(f"# {line}")
        return
    from medzsad.training.train import train as run_training

    show_log(None if quiet else click.echo)
    result = run_training(
        recipe,
        folder,
        device=device,
        fresh=fresh,
        clip_weights=clip_weights,
    )
    if not result.is_first:
        raise click.exceptions.Exit(0 if result.finished else 130)
    if not result.finished:
        again = _command(sys.argv[1:], os.environ)
        click.echo(
            f"stopped after step {result.progress.step} of {result.steps}; go on with: {again}", err=True
        )
        raise click.exceptions.Exit(130)
    if not quiet:
        click.echo(f"done: {folder} (model card: {folder / 'card.md'}; use it with --model {folder})")


def _command(arguments: Sequence[str], environ: Mapping[str, str]) -> str:
    """What goes on with a run: as many processes as now, without --fresh."""
    again = shlex.join(["medzsad", *(argument for argument in arguments if argument != "--fresh")])
    if int(environ.get("WORLD_SIZE", "1")) == 1:
        return again
    count = environ.get("LOCAL_WORLD_SIZE", environ["WORLD_SIZE"])
    return f"torchrun --nproc-per-node {count} -m {again}"


def _roots(pairs: tuple[str, ...]) -> dict[str, str]:
    roots = {}
    for pair in pairs:
        name, found, folder = pair.partition("=")
        if not found or not name or not folder:
            raise BadInput(f"--data {pair}: expected NAME=DIR, such as mvtec=/data/mvtec")
        roots[name] = folder
    return roots
