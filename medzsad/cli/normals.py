"""``medzsad normals``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from medzsad.cli.completion import complete_plane
from medzsad.cli.options import device_option, json_option, tell, threads_option
from medzsad.cli.terminal import progress_of, show_log
from medzsad.errors import BadInput


@click.group()
def normals() -> None:
    """Profiles of normal scans: what differs from a handful of normal ones is anomalous (docs/normals.md)."""


@normals.command()
@click.argument("inputs", nargs=-1, required=True, metavar="FOLDER|FILE...")
@click.option(
    "-o", "--out", required=True, type=click.Path(path_type=Path), metavar="FILE", help="Write it there."
)
@click.option(
    "--features",
    default="lite0",
    show_default=True,
    metavar="NAME",
    help="The frozen backbone that patches are compared by.",
)
@click.option(
    "--size",
    "image_size",
    type=click.IntRange(min=32),
    metavar="N",
    help="Side of its input [default: its own].",
)
@click.option(
    "--weights", metavar="FILE", help="Of the backbone, instead of those in the cache or the package."
)
@click.option(
    "--augment",
    "augmentation",
    default="flip",
    show_default=True,
    type=click.Choice(["none", "flip", "rotations"]),
    help="Views of each normal image, beside itself: mirrored, or turned by quarters.",
)
@click.option(
    "--plane",
    default="auto",
    show_default=True,
    metavar="PLANE",
    shell_complete=complete_plane,
    help="Of volumes: as for medzsad predict.",
)
@click.option("--window", metavar="NAMES|C,W", help="Of CT: as for medzsad predict.")
@click.option(
    "--modality", metavar="NAME", help="ct, mr, xray, us, rgb or grey [default: as each file says]."
)
@click.option(
    "--height-weight",
    type=float,
    default=0.0,
    show_default=True,
    metavar="X",
    help="Of volumes: what the whole height along the stack counts as, in deviations of the patches.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of what is drawn.")
@threads_option
@device_option
@click.option("-q", "--quiet", is_flag=True, help="No progress bar or notes.")
def fit(inputs: tuple[str, ...], out: Path, quiet: bool, **options: Any) -> None:
    """Make the profile of normal scans: files, and all scans in folders.

    One is enough to begin with. They must be framed as what is to be scored: same modality, same part of the
    body, same view. Volumes count with all their slices. Nothing of names or patients is stored.

    Exit code: 0 done, 2 bad input or options, 1 internal error.
    """
    show_log(None if quiet else tell)
    if out.is_dir():
        raise BadInput(f"{out} is a folder; give the name of a file, such as {out / 'brain.normals'}")

    from medzsad.detectors.checkpoint import save_checkpoint
    from medzsad.training.normals import fit_normals, normal_places

    places, notes = normal_places(inputs)
    for note in () if quiet else notes:
        tell(note)
    detector = fit_normals(places, progress=None if quiet else progress_of("normals", unit="scan"), **options)
    save_checkpoint(detector.to_checkpoint(), out)
    if not quiet:
        click.echo(f"{out}: {detector.record['data']} ({', '.join(detector.record['modalities'])})")


@normals.command()
@click.argument("file", metavar="FILE")
@json_option
def info(file: str, as_json: bool) -> None:
    """Show what a profile was made from, and how."""
    from medzsad.detectors.normals.card import card_of

    card = card_of(file)
    if as_json:
        from medzsad.results.report import to_json

        click.echo(to_json(card), nl=False)
        return
    for name, value in card.items():
        if value is None:
            continue
        text = ", ".join(map(str, value)) if isinstance(value, list) else value
        click.echo(f"{name.replace('_', ' ') + ':':<16}{text}")
