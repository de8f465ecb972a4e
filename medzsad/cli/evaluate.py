"""``medzsad evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medzsad.cli.completion import complete_dataset, complete_model
from medzsad.cli.options import (
    backend_option,
    clip_option,
    device_option,
    mutual_of,
    mutual_options,
    organ_option,
    precision_option,
    tell,
    threads_option,
)
from medzsad.cli.terminal import progress_of, show_log
from medzsad.errors import BadInput
from medzsad.storage.text_files import whole_number

if TYPE_CHECKING:
    from medzsad.datasets.opening import DatasetQuery
    from medzsad.evaluation.command import Progress
    from medzsad.evaluation.few_normals import FewNormals
    from medzsad.evaluation.settings import EvaluationSettings, RunSettings
    from medzsad.evaluation.tables import Table
    from medzsad.settings import DetectorSpec

DEFAULT = "medzsad-mini"


@click.command()
@click.option(
    "-d",
    "--dataset",
    metavar="NAME",
    shell_complete=complete_dataset,
    help="A data set: see medzsad datasets list.",
)
@click.option(
    "--suite",
    metavar="NAME|SET,SET",
    help="Every set of paper17, medical10 or industrial7, or of a list of names, that lies in --data.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The folder that holds the sets of --suite [default: that of MEDZSAD_DATA].",
)
@click.option(
    "--root",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Its folder [default: that of MEDZSAD_DATA].",
)
@click.option(
    "-m",
    "--model",
    "models",
    multiple=True,
    metavar="NAME",
    shell_complete=complete_model,
    help="A model's name, or a .safetensors checkpoint; several are compared [default: medzsad-mini].",
)
@click.option(
    "--normals",
    metavar="own|FOLDER|FILE",
    help="With normal scans: the set's own (left out of the test), a folder's, or a profile (medzsad normals "
    "fit). Alone, or joined to each --model.",
)
@click.option(
    "--shots",
    metavar="N,N",
    help="How many normal scans a profile gets, in turn [default: 1,2,4; of a folder all].",
)
@click.option(
    "--draws", type=click.IntRange(min=1), metavar="N", help="How often they are drawn [default: 3]."
)
@click.option(
    "--augment",
    type=click.Choice(["none", "flip", "rotations"]),
    help="Views of each of those normal images [default: flip].",
)
@mutual_options
@click.option("-o", "--out", type=click.Path(path_type=Path), metavar="DIR", help="Write results there.")
@click.option(
    "--save-maps", is_flag=True, help="Also write all maps and a sheet of the best and worst cases."
)
@click.option("--split", default="test", show_default=True, type=click.Choice(["test", "train", "valid"]))
@click.option("--class", "classes", multiple=True, metavar="NAME", help="Only this class; may be repeated.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only so many samples, evenly spread.")
@click.option("--channel", metavar="NAME", help="Of volumes with several images: flair, t1c, ...")
@click.option(
    "--size",
    default="518",
    show_default=True,
    metavar="N|native",
    help="Side of the square that 2D maps and masks are compared at, or native.",
)
@click.option(
    "--framing",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "whole", "foreground"]),
    help="Show a detector the whole 2D image (as published), or what predict shows it.",
)
@click.option(
    "--metrics",
    "mode",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "exact", "histogram"]),
    help="Pixel metrics: exact, or counted in bins with error bounds; auto by size.",
)
@click.option("--fpr-limit", default=0.3, show_default=True, metavar="X", help="Where AUPRO ends.")
@click.option(
    "--threshold", type=float, metavar="X", help="Of the map, for Dice and lesions [default: model's]."
)
@click.option(
    "--foreground-only", is_flag=True, help="Of volumes, count only voxels in the set's foreground."
)
@click.option("--min-lesion-ml", default=0.0, metavar="X", help="Ignore smaller lesions of the truth.")
@click.option(
    "--min-lesion-iou",
    default=0.1,
    show_default=True,
    metavar="X",
    help="IoU from which on a candidate finds a lesion.",
)
@click.option(
    "--masks",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "published", "half"]),
    help="2D masks as in the published evaluations, or cut at half of white; auto: published where "
    "published figures stand beside.",
)
@click.option("--resamples", default=1000, show_default=True, metavar="N", help="Of the bootstrap; 0: none.")
@click.option("--seed", default=0, show_default=True, help="Of the bootstrap and of --limit.")
@click.option("--no-references", is_flag=True, help="Leave out brightness, darkness and asymmetry.")
@organ_option
@click.option(
    "--class-name",
    metavar="TEXT",
    help="What those texts call the images [default: each class's name, see docs/methods.md].",
)
@click.option(
    "--any-modality", is_flag=True, help="Let a profile of normals score scans of other modalities, too."
)
@clip_option
@click.option(
    "--batch-size", type=click.IntRange(min=1), default=1, show_default=True, help="Images at once."
)
@threads_option
@device_option
@precision_option
@backend_option
@click.option(
    "--shard", metavar="I/N", help="Only predict share I of N, for an evaluation to come; no figures."
)
@click.option("--no-cache", is_flag=True, help="Keep no predictions; an interrupted run begins anew.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON instead of tables.")
@click.option("-q", "--quiet", is_flag=True, help="No progress bars or notes.")
def evaluate(
    dataset: str | None,
    suite: str | None,
    data: Path | None,
    root: Path | None,
    models: tuple[str, ...],
    out: Path | None,
    size: str,
    shard: str | None,
    mutual: bool,
    features: str | None,
    height_window: float | None,
    as_json: bool,
    quiet: bool,
    normals: str | None,
    shots: str | None,
    draws: int | None,
    augment: str | None,
    **options: Any,
) -> None:
    """Measure detectors on a data set, or on a suite of them, with the papers' metrics.

    The trivial references run beside them. An interrupted run goes on where it stopped. Figures are percent;
    in files they are fractions.

    Exit code: 0 done, 2 bad input or options, 1 internal error; of a suite, that of a set that failed.
    """
    show_log(None if quiet else _say)
    progress = None if quiet else progress_of
    drawing = {"draws": draws, "features": features, "augmentation": augment}
    few = _few_normals(normals, shots, drawing, options)
    options["normals"] = normals if few is None else None
    options["only_normals"] = few is not None and not models
    if few is not None and (suite or shard):
        raise BadInput(f"--normals {normals} is for one data set, whole: leave out --suite and --shard")
    compared = mutual_of(mutual, features if mutual or few is None else None, height_window)
    if suite is not None:
        given: dict[str, object] = {
            "--dataset": dataset,
            "--root": root,
            "--shard": shard,
            "--mutual": mutual,
        }
        given |= {option: options[name] for name, option in NOT_OF_SUITES.items()}
        for name, value in given.items():
            if value not in (None, (), False):
                raise BadInput(f"{name} is for one data set: leave it or --suite out")
        _evaluate_suite(
            _query(suite, data, options), *_settings(models, out, size, options), progress, as_json
        )
        return
    if dataset is None:
        raise BadInput("which data set? give --dataset NAME, or --suite NAME for several")
    if data is not None:
        raise BadInput("--data is the folder of --suite; the folder of --dataset is --root")
    from medzsad.evaluation.command import run_evaluation, run_share
    from medzsad.evaluation.reporting import document, tables

    if options["save_maps"] and out is None:
        raise BadInput("--save-maps needs a folder to write to: give --out DIR")
    if shard is not None and (out is not None or options["no_cache"]):
        raise BadInput("--shard writes to the cache alone: leave out --out, --save-maps and --no-cache")
    if shard is not None and mutual:
        raise BadInput("--mutual compares all samples of a class; leave out --shard")
    query, (specs, settings, run) = _query(dataset, root, options), _settings(models, out, size, options)
    if shard is not None:
        total, found = run_share(query, specs, shard, settings, run, progress=progress)
        _say(f"shard {shard}: {total} predictions, {found} of them from an earlier run")
        return
    if mutual and not models:
        specs = []
    evaluation = run_evaluation(
        query, specs, settings, run, few=few, mutual=compared, device=options["device"], progress=progress
    )
    _print(tables(evaluation), document(evaluation) if as_json else None, out)


# Options of one data set: what its images show and what of it is taken.
NOT_OF_SUITES = {
    "save_maps": "--save-maps",
    "classes": "--class",
    "channel": "--channel",
    "organ": "--organ",
    "class_name": "--class-name",
}


def _evaluate_suite(
    query: DatasetQuery,
    specs: list[DetectorSpec],
    settings: EvaluationSettings,
    run: RunSettings,
    progress: Progress | None,
    as_json: bool,
) -> None:
    from medzsad.evaluation.suite import run_suite
    from medzsad.evaluation.suite_report import suite_document, suite_tables

    result = run_suite(query, specs, settings, run, progress=progress)
    _print(suite_tables(result), suite_document(result) if as_json else None, run.out)
    for one in result.sets:
        if one.status == "failed":
            tell(f"error: {one.entry.name}: {one.message}")
    if result.exit_code:
        raise click.exceptions.Exit(result.exit_code)


def _print(tables: list[Table], document: dict[str, Any] | None, out: Path | None) -> None:
    if document is not None:
        from medzsad.results.report import to_json

        click.echo(to_json(document), nl=False)
        return
    click.echo("\n\n".join(table.terminal() for table in tables))
    if out is not None:
        click.echo(f"\nfiles in {out}")


def _query(name: str, root: Path | None, options: dict[str, Any]) -> DatasetQuery:
    from medzsad.datasets.opening import DatasetQuery

    chosen = {key: options[key] for key in ("split", "limit", "channel", "seed")}
    return DatasetQuery(name, root, classes=options["classes"] or None, **chosen)


def _settings(
    models: tuple[str, ...], out: Path | None, size: str, options: dict[str, Any]
) -> tuple[list[DetectorSpec], EvaluationSettings, RunSettings]:
    from medzsad.detectors.organs import name_of
    from medzsad.evaluation.settings import REFERENCES, EvaluationSettings, RunSettings
    from medzsad.settings import DetectorSpec
    from medzsad.zoo.loading import clip_weights_of

    names = ("framing", "mode", "masks", "fpr_limit", "threshold", "resamples", "seed", "foreground_only")
    settings = EvaluationSettings(
        size=_side(size),
        minimum_lesion_ml=options["min_lesion_ml"],
        minimum_lesion_iou=options["min_lesion_iou"],
        class_name=name_of(options["organ"], options["class_name"]),
        **{name: options[name] for name in names},
    )
    run = RunSettings(
        out=out,
        save_maps=options["save_maps"],
        references=() if options["no_references"] else REFERENCES,
        batch_size=options["batch_size"],
        no_cache=options["no_cache"],
    )
    told = {key: options[key] for key in ("device", "precision", "organ", "backend", "any_modality")}
    if options["only_normals"]:
        return [], settings, run
    if options["normals"] is not None and not models:
        models = (options["normals"],)
    elif options["normals"] is not None:
        told["normals"] = options["normals"]
    weights = clip_weights_of(models or (DEFAULT,), options["clip_weights"])
    return [DetectorSpec(model, clip_weights=own, **told) for model, own in weights.items()], settings, run


def _few_normals(
    normals: str | None, shots: str | None, drawing: dict[str, Any], options: dict[str, Any]
) -> FewNormals | None:
    """Return what is drawn for profiles; None where none are made here."""
    from medzsad.evaluation.few_normals import OWN, FewNormals

    drawn = normals is not None and (normals == OWN or Path(normals).expanduser().is_dir())
    drawing = {name: value for name, value in drawing.items() if value is not None}
    if not drawn:
        if shots is not None or drawing:
            raise BadInput("--shots, --draws, --features and --augment are for --normals own, or a folder")
        return None
    counts = None if shots is None else tuple(whole_number(n, "--shots") for n in shots.split(","))
    source = OWN if normals == OWN else str(Path(str(normals)).expanduser())
    return FewNormals(source=source, shots=counts, device=options["device"], seed=options["seed"], **drawing)


def _side(size: str) -> int | None:
    if size == "native":
        return None
    return whole_number(size, "--size (or native)")


def _say(text: str) -> None:
    tell(text.replace("\n", " "))
