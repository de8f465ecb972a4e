"""``medzsad predict``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from medzsad.errors import MedzsadError


@click.command()
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...", type=click.Path(path_type=Path))
@click.option(
    "-o", "--out", default="out", show_default=True, type=click.Path(path_type=Path), help="Results folder."
)
@click.option(
    "-m",
    "--model",
    default="medzsad-mini",
    show_default=True,
    help="A model's name (see medzsad models list), or a .safetensors checkpoint.",
)
@click.option(
    "--clip-weights",
    metavar="TAG|FILE",
    help="Other CLIP weights for CLIP-based models: an open_clip tag or a local file.",
)
@click.option(
    "--organ",
    metavar="NAME",
    help="What the scans show, for models whose texts name it: brain, liver, ... [default: object-agnostic].",
)
@click.option(
    "--plane",
    default="auto",
    show_default=True,
    metavar="PLANE",
    help="auto (acquisition plane), axial, coronal, sagittal, or all (mean of the three).",
)
@click.option(
    "--window",
    metavar="NAMES|C,W",
    help="CT windows: brain, subdural, bone, lung, mediastinum, abdomen, up to three joined by '+'; "
    "or centre,width in HU.",
)
@click.option(
    "--modality",
    metavar="NAME",
    help="ct, mr, xray, us, rgb or grey [default: from DICOM, else guessed and said].",
)
@click.option(
    "--threshold",
    metavar="RULE",
    help="Of the map: a number from 0 to 1, a percentile such as p99.5, or otsu [default: the model's own].",
)
@click.option("--series", metavar="UID", help="Which DICOM series of a folder [default: the largest].")
@click.option("--volume", type=int, metavar="N", help="Which volume of a 4D NIfTI, from 0.")
@click.option("--batch-size", type=click.IntRange(min=1), help="Slices at once [default: by device].")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 or mps.")
@click.option(
    "--precision", default="auto", show_default=True, type=click.Choice(["auto", "fp32", "bf16", "fp16"])
)
@click.option("--save-scan", is_flag=True, help="Also write the scan as it was read (NAME_scan.nii.gz).")
@click.option("--json", "as_json", is_flag=True, help="Print the reports as JSON instead of the table.")
@click.option("-q", "--quiet", is_flag=True, help="No progress bar, notes or table.")
def predict(inputs: tuple[Path, ...], out: Path, as_json: bool, quiet: bool, **options: Any) -> None:
    """Find what is anomalous in scans.

    INPUT is a NIfTI file, a DICOM file or series folder, a PNG, JPEG or TIFF image, or a folder of these.
    For each scan the folder OUT gets NAME_anomaly.nii.gz, NAME_mask.nii.gz, NAME_overlay.png and NAME.json.

    Exit code: 0 all done, 2 bad input (the other inputs are still finished), 1 internal error.
    """
    from medzsad.cohort import predict_many

    outcome = predict_many(inputs, out, say=None if quiet else _say, bar=not quiet, **options)
    if as_json:
        from medzsad.results.report import to_json

        click.echo(to_json(outcome.document()), nl=False)
    elif not quiet:
        for line in outcome.table():
            click.echo(line)
    for path, error in outcome.failed:
        kind = (
            "error" if isinstance(error, MedzsadError) else f"internal error: {path}: {type(error).__name__}"
        )
        _say(f"{kind}: {error}")
    if outcome.exit_code:
        raise click.exceptions.Exit(outcome.exit_code)


def _say(text: str) -> None:
    click.echo(text.replace("\n", " "), err=True)
