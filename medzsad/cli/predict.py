"""``medzsad predict``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click

from medzsad.cli.options import threads_option
from medzsad.cli.progress import StatusLine, progress_of
from medzsad.cli.terminal import show_log
from medzsad.errors import BadInput, MedzsadError


@click.command()
@click.argument("inputs", nargs=-1, metavar="INPUT...")
@click.option(
    "-o",
    "--out",
    default="out",
    show_default=True,
    metavar="DIR|URL",
    help="Results folder; of a cohort also a URL that fsspec can write to, such as s3://bucket/out.",
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
    "--class-name",
    metavar="TEXT",
    help="The same in words of one's own, for those texts: 'knee MRI' [default: the organ's].",
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
    help="CT windows: brain, subdural, bone, lung, mediastinum, abdomen, up to three joined by '+' (of which "
    "medzsad-mini reads the first); or centre,width in HU.",
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
@click.option(
    "--roi",
    metavar="MASK|brain|whole",
    help="Look only there: a mask's file on any grid, or the brain that the model sees [default: of heads "
    "the brain, where it can be trusted; whole otherwise].",
)
@click.option("--max-candidates", type=int, metavar="N", help="Show at most so many lesion candidates.")
@click.option("--min-volume", type=float, metavar="ML", help="Show only candidates of so many mL or more.")
@click.option("--all-candidates", is_flag=True, help="Hide no candidate, not even faint ones.")
@click.option(
    "--volume-rules",
    default="auto",
    show_default=True,
    metavar="auto|on|off",
    help="Of volumes: smooth the map along the stack, leave out the ends, hide faint candidates; auto: if "
    "the model was measured so.",
)
@click.option(
    "--series",
    metavar="UID",
    help="Which DICOM series of a folder: its UID, or the end of it [default: the largest].",
)
@click.option("--volume", type=int, metavar="N", help="Which volume of a 4D file or series, from 0.")
@click.option("--batch-size", type=click.IntRange(min=1), help="Slices at once [default: by device].")
@threads_option
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 or mps.")
@click.option(
    "--precision",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "fp32", "tf32", "bf16", "fp16"]),
)
@click.option(
    "--backend",
    default="torch",
    show_default=True,
    type=click.Choice(["torch", "openvino", "onnx", "auto"]),
    help="What computes on the CPU; auto: the fastest that medzsad models time measured (docs/backends.md).",
)
@click.option("--save-scan", is_flag=True, help="Also write the scan as it was read (NAME_scan.nii.gz).")
@click.option(
    "--save-brain", is_flag=True, help="Also write the brain that the model sees (NAME_brain.nii.gz)."
)
@click.option(
    "--overlay",
    default="montage",
    show_default=True,
    type=click.Choice(["montage", "slices", "none"]),
    help="Pictures: the most anomalous slices on one page, one picture each, or none.",
)
@click.option("--report", is_flag=True, help="Also an HTML report to look through (NAME_report.html).")
@click.option(
    "--with-identity", is_flag=True, help="The HTML report names the patient, as the DICOM source does."
)
@click.option("--seg-nrrd", is_flag=True, help="Also the mask for 3D Slicer (NAME_mask.seg.nrrd).")
@click.option(
    "--dicom",
    metavar="LIST",
    help="Also DICOM results, for DICOM input: seg, seg-fractional, pm, sr, sc joined by ',', or all "
    "(seg,pm,sr).",
)
@click.option("--dicomweb", "server", metavar="URL", help="One more input: of this DICOMweb server, ...")
@click.option("--study", metavar="UID", help="... this study [its largest series, or --series].")
@click.option(
    "--dicomweb-header",
    "headers",
    multiple=True,
    metavar="'NAME: VALUE'",
    help="To be let in; better set MEDZSAD_DICOMWEB_TOKEN or MEDZSAD_DICOMWEB_HEADERS.",
)
@click.option("--store", is_flag=True, help="Send the DICOM results back to the DICOMweb server.")
@click.option("--jobs", type=click.IntRange(min=0), metavar="N", help="A cohort in N processes; see below.")
@click.option(
    "--ray",
    is_flag=False,
    flag_value="auto",
    metavar="[ADDRESS]",
    help="A cohort on the Ray cluster at host:port; without ADDRESS on one on this machine.",
)
@click.option("--shard", metavar="I/N", help="Of a cohort, only share I of N, the same in every run.")
@click.option("--retry-failed", is_flag=True, help="Of a cohort, also scans that failed in an earlier run.")
@click.option("--json", "as_json", is_flag=True, help="Print the reports as JSON instead of the table.")
@click.option("-q", "--quiet", is_flag=True, help="No progress bar, notes or table.")
def predict(
    inputs: tuple[str, ...],
    out: str,
    jobs: int | None,
    ray: str | None,
    shard: str | None,
    retry_failed: bool,
    as_json: bool,
    quiet: bool,
    server: str | None,
    study: str | None,
    headers: tuple[str, ...],
    store: bool,
    **options: Any,
) -> None:
    """Find what is anomalous in scans.

    INPUT is a NIfTI, NRRD, MetaImage or MGZ file, a DICOM file or series folder, a PNG, JPEG or TIFF image, a
    folder of these, or dicomweb://host/path/studies/UID[/series/UID] (dicomwebs:// for https).
    For each scan the folder OUT gets NAME_anomaly.nii.gz, NAME_mask.nii.gz, NAME_overlay.png and NAME.json.

    A cohort is what is asked for by --jobs, --ray or --shard, by an INPUT that is a CSV table (column scan;
    also id, series, modality, plane) or a query (dicomweb://host/path/studies?ModalitiesInStudy=MR), or by a
    URL as OUT. Its results lie in OUT/scans, their scores in OUT/scores.parquet, and a second run does only
    what is missing: docs/scaling.md.

    Exit code: 0 all done, 2 bad input (the other inputs are still finished), 1 internal error.
    """
    status = StatusLine(not quiet)
    status("starting")
    from medzsad.batch import predict_many
    from medzsad.batch.dicomweb_inputs import fetched
    from medzsad.cli.predict_cohort import is_cohort, predict_cohort

    if not inputs and server is None:
        hint = "" if ray in (None, "auto") else f" --ray took {ray} for an address: put --ray last."
        raise click.UsageError(f"Missing argument 'INPUT...'.{hint}")
    if options["with_identity"] and not options["report"]:
        raise BadInput("--with-identity names the patient in the HTML report; add --report.")
    say = None if quiet else status.say
    show_log(say)
    if is_cohort(inputs, out, jobs, ray, shard, retry_failed):
        if store or server is not None:
            raise BadInput(
                "a cohort has no --store and no --dicomweb; give dicomweb://host/path/studies/UID as INPUT."
            )
        predict_cohort(
            inputs,
            out,
            options,
            jobs=jobs,
            ray=ray,
            shard=shard,
            retry_failed=retry_failed,
            headers=headers,
            as_json=as_json,
            quiet=quiet,
        )
        return
    place = {"server": server, "study": study, "series": options["series"], "headers": headers}
    if store:
        options["dicom"] = options["dicom"] or "all"
    with fetched(inputs, **place, say=say) as remote:
        if store and not remote.is_remote:
            raise BadInput("--store sends results back to a DICOMweb server, but no input is from one.")
        progress = None if quiet else partial(progress_of, unit="slice")
        outcome = predict_many(remote.paths, Path(out), say=say, phase=status, progress=progress, **options)
        if store:
            remote.store(outcome, say)
        remote.restore_names(outcome)
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
        status.say(f"{kind}: {error}")
    if outcome.exit_code:
        raise click.exceptions.Exit(outcome.exit_code)
