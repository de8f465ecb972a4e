"""``medzsad predict`` and ``medzsad cohort``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from medzsad.cli.completion import complete_model, complete_plane
from medzsad.cli.options import (
    backend_option,
    class_option,
    clip_option,
    device_option,
    given,
    in_options,
    json_option,
    mutual_of,
    mutual_options,
    normals_option,
    organ_option,
    precision_option,
    tell,
    threads_option,
)
from medzsad.cli.terminal import Countdown, StatusLine, progress_of, scans_bar, show_log
from medzsad.errors import BadInput

if TYPE_CHECKING:
    from medzsad.batch.outcome import Outcome
    from medzsad.batch.watch import Notes


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
    shell_complete=complete_model,
    help="A model's name (see medzsad models list), or a .safetensors checkpoint.",
)
@normals_option
@click.option(
    "--any-modality", is_flag=True, help="Let a profile of normals score scans of other modalities, too."
)
@clip_option
@mutual_options
@organ_option
@class_option
@click.option(
    "--plane",
    default="auto",
    show_default=True,
    metavar="PLANE",
    shell_complete=complete_plane,
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
    help="ct, mr, xray, us, rgb (photographs, grey ones, too) or grey "
    "[default: from DICOM, else guessed and said].",
)
@click.option(
    "--threshold",
    metavar="RULE",
    help="Of the map: a number from 0 to 1, a percentile such as p99.5, or otsu [default: the model's own, "
    "at which faint candidates of volumes are hidden].",
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
    "--slice-step",
    metavar="all|auto|MM",
    help="Of volumes of thin slices predict one every so many mm (auto: 3) and interpolate between them: "
    "faster, but small lesions get lost [default: all; of medzsad-mini as auto].",
)
@click.option(
    "--first-pass",
    type=int,
    metavar="PX",
    help="Of volumes predict all slices at so many pixels, fewer than the model's own (of 518: 224 or 336), "
    "and in full the third that scores highest: faster for a CLIP, but what is small or faint gets lost.",
)
@click.option(
    "--series",
    metavar="UID",
    help="Which DICOM series of a folder: its UID, or the end of it [default: the largest].",
)
@click.option("--volume", type=int, metavar="N", help="Which volume of a 4D file or series, from 0.")
@click.option("--batch-size", type=click.IntRange(min=1), help="Slices at once [default: by device].")
@threads_option
@device_option
@precision_option
@backend_option
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
@click.option(
    "--server", "serving", metavar="URL", help="Let a medzsad serve there compute, such as http://host:8765."
)
@click.option("--token-file", metavar="FILE", help="Holds the secret that --server asks for.")
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
@click.option("--fresh", is_flag=True, help="Do again what an earlier run did of the same scans.")
@click.option("--json", "as_json", is_flag=True, help="Print the reports as JSON instead of the table.")
@click.option("-q", "--quiet", is_flag=True, help="No progress bar, notes or table.")
@click.pass_context
def predict(
    context: click.Context,
    inputs: tuple[str, ...],
    out: str,
    jobs: int | None,
    ray: str | None,
    shard: str | None,
    retry_failed: bool,
    fresh: bool,
    as_json: bool,
    quiet: bool,
    server: str | None,
    study: str | None,
    headers: tuple[str, ...],
    store: bool,
    mutual: bool,
    features: str | None,
    height_window: float | None,
    serving: str | None,
    token_file: str | None,
    **options: Any,
) -> None:
    """Find what is anomalous in scans.

    INPUT is a NIfTI, NRRD, MetaImage or MGZ file, a DICOM file or series folder, a PNG, JPEG or TIFF image, a
    folder of these, or dicomweb://host/path/studies/UID[/series/UID] (dicomwebs:// for https).
    For each scan the folder OUT gets NAME_anomaly.nii.gz, NAME_mask.nii.gz, NAME_overlay.png and NAME.json.
    What a run before did of the same scan with the same options is kept; --fresh does it again.

    A cohort is what is asked for by --jobs, --ray or --shard, by an INPUT that is a CSV table (column scan;
    also id, series, modality, plane) or a query (dicomweb://host/path/studies?ModalitiesInStudy=MR), or by a
    URL as OUT. Its results lie in OUT/scans, their scores in OUT/scores.parquet: docs/scaling.md.

    Exit code: 0 all done, 2 bad input (the other inputs are still finished), 1 internal error.
    """
    if serving is not None:
        from medzsad.cli.remote import predict_remotely

        predict_remotely(context, inputs, out, serving, token_file, options, as_json=as_json, quiet=quiet)
        return
    if token_file is not None:
        raise BadInput("--token-file is the secret of --server URL; add it.")
    status = StatusLine(not quiet)
    status("starting")
    if mutual and (options["normals"] is not None or given(context, "model")):
        raise BadInput(
            "--mutual takes no --model and no --normals: scans are compared with each other; leave one out."
        )
    if options["normals"] is not None and not given(context, "model"):
        options["model"], options["normals"] = options["normals"], None
    if not inputs and server is None:
        hint = "" if ray in (None, "auto") else f" --ray took {ray} for an address: put --ray last."
        raise click.UsageError(f"Missing argument 'INPUT...'.{hint}")
    if options["with_identity"] and not options["report"]:
        raise BadInput("--with-identity names the patient in the HTML report; add --report.")
    compared = mutual_of(mutual, features, height_window)
    if _is_cohort(inputs, out, jobs, ray, shard, retry_failed):
        if store or server is not None:
            raise BadInput(
                "a cohort has no --store and no --dicomweb; give dicomweb://host/path/studies/UID as INPUT."
            )
        from medzsad.batch.predictor import PredictSettings
        from medzsad.batch.run import run_cohort
        from medzsad.scans.dicom.web import access_headers
        from medzsad.storage.hashing import Shard

        outcome = run_cohort(
            inputs,
            out,
            PredictSettings(**options),
            jobs=jobs,
            ray=ray,
            shard=None if shard is None else Shard.parse(shard),
            retry_failed=retry_failed,
            fresh=fresh,
            headers=access_headers(headers),
            mutual=compared,
            bar=None if quiet else scans_bar,
        )
    else:
        from medzsad.batch.manifest import is_url
        from medzsad.batch.run import predict_many
        from medzsad.scans.dicom.web import access_headers

        places = _with_server(inputs, server, study, options["series"])
        is_remote = any(map(is_url, places))
        if store:
            options["dicom"] = options["dicom"] or "all"
            if not is_remote:
                raise BadInput("--store sends results back to a DICOMweb server, but no input is from one.")
        show_log(None if quiet else status.say)
        outcome = predict_many(
            places,
            out,
            fresh=fresh,
            watch=None if quiet else watch_of(status),
            headers=access_headers(headers) if is_remote else {},
            send_back=store,
            mutual=compared,
            **options,
        )
    _finish(outcome, status, as_json=as_json, quiet=quiet)


def _is_cohort(
    inputs: Sequence[str], out: str, jobs: int | None, ray: str | None, shard: str | None, retry_failed: bool
) -> bool:
    """Whether options or inputs ask for a cohort."""
    from medzsad.batch.manifest import is_table
    from medzsad.scans.dicom.web_query import is_query

    asked = jobs is not None or ray is not None or shard is not None or retry_failed
    return asked or "://" in out or any(is_table(text) or is_query(text) for text in inputs)


def _with_server(
    inputs: Sequence[str], server: str | None, study: str | None, series: str | None
) -> list[str]:
    """The inputs, and the study of --dicomweb and --study as one more."""
    from medzsad.scans.dicom.web import RemoteSeries

    if (server is None) != (study is None):
        raise BadInput("--dicomweb URL and --study UID belong together; give both, or a dicomweb:// URL.")
    if server is None or study is None:
        return list(inputs)
    scheme, mark, rest = server.partition("://")
    scheme = {"dicomweb": "http", "dicomwebs": "https"}.get(scheme.lower(), scheme)
    remote = str(RemoteSeries(f"{scheme}{mark}{rest}".rstrip("/"), study, series))
    return [*inputs, f"dicomweb{remote.removeprefix('http')}"]


def watch_of(status: StatusLine) -> Notes:
    """Return what shows on the terminal how far a scan is."""
    from medzsad.batch.watch import Notes

    class Shown(Notes):
        def __init__(self) -> None:
            super().__init__()
            self._count = Countdown(0)

        def begin(self, total: int) -> None:
            self._count = Countdown(total)

        def advance(self) -> None:
            self._count.advance()

        def phase(self, text: str) -> None:
            status(self._count.before(text, self.behind) if text else "")

        def slices(self, name: str) -> Any:
            return progress_of(self._count.before(name, self.behind), unit="slice")

    return Shown()


def _finish(outcome: Outcome, status: StatusLine, *, as_json: bool, quiet: bool) -> None:
    """Print what became of the scans, and end with its exit code."""
    status("")
    if as_json:
        from medzsad.results.report import to_json

        click.echo(to_json(outcome.document()), nl=False)
    elif not quiet:
        for line in outcome.lines():
            click.echo(in_options(line))
    merged = None if quiet else outcome.merged
    notes = () if merged is None else (*merged.notes, *merged.summary.notes)
    for line in (*notes, *(f"error: {line}" for line in outcome.failures())):
        status.say(line)
    if outcome.exit_code:
        raise click.exceptions.Exit(outcome.exit_code)


@click.group()
def cohort() -> None:
    """What many scans, predicted by medzsad predict --jobs, --ray or --shard, have in common."""


@cohort.command()
@click.argument("out", metavar="DIR|URL")
@json_option
def merge(out: str, as_json: bool) -> None:
    """Merge the tables of all shards and runs in DIR|URL.

    Makes scores.parquet, scores.csv, lesions.csv and, of reports, index.html.
    """
    from medzsad.batch.store import open_store
    from medzsad.batch.table import merge as merge_parts

    store = open_store(out)
    merged = merge_parts(store)
    if as_json:
        from medzsad.results.report import to_json

        click.echo(to_json(merged.document(store.url)), nl=False)
        return
    for note in merged.notes:
        tell(note)
    for line in merged.lines(store.url):
        click.echo(line)
