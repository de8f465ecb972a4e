"""``medzsad bids``: the package as a BIDS app."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from medzsad.cli.options import given, in_options, json_option, threads_option
from medzsad.cli.predict import predict, watch_of
from medzsad.cli.terminal import StatusLine, show_log

# Of predict's options those that make sense here.
SHARED = (
    "model", "normals", "any_modality", "clip_weights", "organ", "class_name", "plane", "threshold", "roi",
    "max_candidates", "min_volume", "all_candidates", "volume_rules", "slice_step", "first_pass",
    "batch_size", "device", "precision", "backend", "report",
)  # fmt: skip
SEVERAL = ("--participant-label", "--participant_label", "--session-label", "--session_label", "--suffix")


class BidsCommand(click.Command):
    """Takes several values after an option, as BIDS apps do: ``--suffix FLAIR T1w``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Write ``--suffix FLAIR T1w`` as ``--suffix FLAIR --suffix T1w``, and parse that."""
        spelt: list[str] = []
        option, count = None, 0  # the option whose values follow, and how many it has
        for argument in args:
            if argument.startswith("-"):
                option, count = (argument, 0) if argument in SEVERAL else (None, 0)
            elif option is not None:
                spelt += [option] if count else []
                count += 1
            spelt.append(argument)
        return super().parse_args(ctx, spelt)


@click.command(cls=BidsCommand)
@click.argument("bids_dir", metavar="BIDS_DIR", type=click.Path(path_type=Path))
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path))
@click.argument("level", metavar="participant|group", type=click.Choice(["participant", "group"]))
@click.option(
    "--participant-label",
    "--participant_label",
    multiple=True,
    metavar="LABEL ...",
    help="Only these participants, with or without sub- [default: all].",
)
@click.option(
    "--session-label",
    "--session_label",
    multiple=True,
    metavar="LABEL ...",
    help="Only these sessions, with or without ses- [default: all].",
)
@click.option(
    "--suffix", multiple=True, metavar="SUFFIX ...", help="Kinds of images in anat/ [default: T1w T2w FLAIR]."
)
@click.option(
    "--skip-bids-validation",
    "--skip_bids_validation",
    is_flag=True,
    help="Do not ask the BIDS validator whether BIDS_DIR is valid.",
)
@click.option(
    "-w",
    "--work-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="What the next run needs to know, on the disk of OUT [default: hidden in OUT].",
)
@click.option("--fresh", is_flag=True, help="Do again what an earlier run did.")
@threads_option
@json_option
@click.option("-q", "--quiet", is_flag=True, help="No progress bar, notes or table.")
@click.pass_context
def bids(
    context: click.Context,
    bids_dir: Path,
    out: Path,
    level: str,
    participant_label: tuple[str, ...],
    session_label: tuple[str, ...],
    suffix: tuple[str, ...],
    skip_bids_validation: bool,
    work_dir: Path | None,
    fresh: bool,
    as_json: bool,
    quiet: bool,
    **settings: Any,
) -> None:
    """Find what is anomalous in the images of a BIDS data set (docs/bids.md).

    At the level participant, each image in anat/ gets BIDS derivatives in OUT: a map
    (desc-anomaly_probseg.nii.gz), a mask, their JSON, and a picture. What a run before did is kept, so that
    it may be given again, or once for every participant. The level group makes a table of all.

    Exit code: 0 all done, 2 bad input (the other images are still finished), 1 internal error.
    """
    status = StatusLine(not quiet)
    status("reading the data set")
    show_log(None if quiet else status.say)
    from medzsad.integrations.bids.app import predict_participants, write_group
    from medzsad.integrations.bids.dataset import SUFFIXES, find_images, validate

    labels = {"participant_label": participant_label, "session_label": session_label}
    images = find_images(bids_dir, suffix=suffix or SUFFIXES, **labels)
    if level == "group":
        table, count = write_group(out, images)
        if as_json:
            from medzsad.results.report import to_json

            click.echo(to_json({"table": str(table), "images": count}), nl=False)
        else:
            click.echo(f"{count} images: {table}")
        return
    if not skip_bids_validation:
        status("validating the data set")
        validate(bids_dir)
    if settings["normals"] is not None and not given(context, "model"):
        settings["model"], settings["normals"] = settings["normals"], None
    outcome = predict_participants(
        bids_dir,
        out,
        images,
        work_dir=work_dir,
        fresh=fresh,
        watch=None if quiet else watch_of(status),
        **settings,
    )
    status("")
    if as_json:
        from medzsad.results.report import to_json

        click.echo(to_json(outcome.document()), nl=False)
    elif not quiet:
        for line in outcome.lines():
            click.echo(in_options(line))
    for image, error in outcome.failures:
        status.say(f"error: {error if error.startswith(str(bids_dir)) else f'{image}: {error}'}")
    if outcome.exit_code:
        raise click.exceptions.Exit(outcome.exit_code)


bids.params += [option for option in predict.params if option.name in SHARED]
