"""The two levels of a BIDS app: predict the images of participants, and make a table of all."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medzsad.batch.run import predict_many
from medzsad.batch.watch import Notes
from medzsad.errors import BadInput, OutputNotWritable
from medzsad.integrations.bids.dataset import BidsImage
from medzsad.integrations.bids.derivatives import MAP_SIDECAR, WORK, check_place, describe, path_of, publish
from medzsad.results.report import to_json
from medzsad.storage.atomic import replacing
from medzsad.storage.text_files import read_json

log = logging.getLogger(__name__)

TABLE = "group_anomaly.tsv"
NOT_AVAILABLE = "n/a"
# Columns of the table: what it is, and its units.
COLUMNS: dict[str, dict[str, str]] = {
    "participant_id": {"Description": "The participant."},
    "session_id": {"Description": "The session; n/a without sessions."},
    "image": {"Description": "The image, from the root of the source data set."},
    "suffix": {"Description": "What kind of image it is."},
    "score": {"Description": "Anomaly score of the image, 0 to 1; ranks images.", "Units": "arbitrary"},
    "candidates": {"Description": "Number of lesion candidates that are shown."},
    "largest_ml": {"Description": "Volume of the largest of them; n/a without one.", "Units": "mL"},
    "total_ml": {"Description": "Volume of all of them.", "Units": "mL"},
    "threshold": {"Description": "Of the map, where candidates begin.", "Units": "arbitrary"},
    "model": {"Description": "The detector."},
    "version": {"Description": "Of medzsad."},
}


@dataclass
class AppOutcome:
    """What became of the images of a run.

    Attributes:
        out: root of the derivatives.
        images: that were asked for.
        done: of each image that has results now, its report and its files by kind.
        failures: the image and the reason of each that has none.
        exit_code: 0 all done, 2 an image was bad, 1 something broke that is not an image's fault.
        before: of those done, how many an earlier run did.
    """

    out: Path
    images: list[BidsImage]
    done: dict[BidsImage, tuple[dict[str, Any], dict[str, Path]]] = field(default_factory=dict)
    failures: list[tuple[str, str]] = field(default_factory=list)
    exit_code: int = 0
    before: int = 0

    def document(self) -> dict[str, Any]:
        """JSON-serialisable."""
        return {
            "results": str(self.out),
            "images": [
                {
                    "participant_id": image.participant,
                    "image": image.relative.as_posix(),
                    "score": report["score"],
                    "candidates": len(report["lesions"]),
                    "files": {kind: path.relative_to(self.out).as_posix() for kind, path in files.items()},
                }
                for image, (report, files) in self.done.items()
            ],
            "failed": [{"image": image, "error": error} for image, error in self.failures],
        }

    def lines(self) -> list[str]:
        """For the terminal, the highest score first."""
        ranked = sorted(self.done.items(), key=lambda item: -item[1][0]["score"])
        lines = [f"{'image':<48} {'score':>6} {'candidates':>10}"]
        lines += [
            f"{image.relative.name:<48} {report['score']:>6.3f} {len(report['lesions']):>10}"
            for image, (report, _) in ranked
        ]
        known = f" ({self.before} by an earlier run; `fresh` does them again)" if self.before else ""
        count = f"{len(self.done)} of {len(self.images)} images done{known}, {len(self.failures)} failed"
        return [*lines, f"{count}: {self.out}", "Research use only - not for diagnosis."]


def predict_participants(
    root: Path,
    out: Path,
    images: Sequence[BidsImage],
    *,
    work_dir: Path | None = None,
    fresh: bool = False,
    watch: Notes | None = None,
    **settings: Any,
) -> AppOutcome:
    """Predict images, and write their results as BIDS derivatives; what an earlier run did is kept.

    Args:
        root: of the data set.
        out: root of the derivatives; created where missing.
        images: see :func:`~medzsad.integrations.bids.dataset.find_images`.
        work_dir: what the next run needs to know; by default hidden in ``out``.
        fresh: do again what is done.
        watch: is told of each image.
        settings: see :class:`~medzsad.batch.predictor.PredictSettings`. The modality is MR, for ``anat/``
            holds nothing else.

    Returns:
        What became of the images.

    Raises:
        MedzsadError: if no image can be done for a reason that is not its own: options, model, ``out``.
    """
    check_place(root, out)
    work = work_dir or out / WORK
    by_path = {str(image.path): image for image in images}
    settings = {"modality": "mr", **settings}
    outcome = predict_many(list(by_path), work, fresh=fresh, watch=watch, **settings)
    done = {}
    if outcome.done:
        describe(root, out)
    for row, result in zip(outcome.ordered(), outcome.results(), strict=True):
        image = by_path[result.input]
        try:
            done[image] = (result.report, publish(image, result.report, result.files, out))
        except OutputNotWritable as error:
            outcome.fail(row.scan, str(error))
    failures = [
        (by_path[source].relative.as_posix() if source in by_path else source, error)
        for source, error in outcome.reasons
    ]
    return AppOutcome(out, list(images), done, failures, outcome.exit_code, outcome.before)


def write_group(out: Path, images: Sequence[BidsImage]) -> tuple[Path, int]:
    """Write the table of all images that have results, and its JSON.

    Args:
        out: root of the derivatives.
        images: which are looked for.

    Returns:
        The table, and how many images it lists.

    Raises:
        BadInput: if none has results, or a sidecar is damaged.
        OutputNotWritable: if the table cannot be written.
    """
    rows = [_row(image, path) for image in images if (path := out / path_of(image, MAP_SIDECAR)).is_file()]
    if not rows:
        raise BadInput(f"{out} holds no results of these images; run the level participant first.")
    missing = len(images) - len(rows)
    if missing:
        log.info(
            "%d of %d images have no results yet; the level participant makes them", missing, len(images)
        )
    ways = {(row["model"], row["version"]) for row in rows}
    if len(ways) > 1:
        log.info("the results are of different models or versions, whose scores cannot be compared: %s",
                 ", ".join(f"{model} ({version})" for model, version in sorted(ways)))  # fmt: skip
    text = io.StringIO()
    writer = csv.DictWriter(text, list(COLUMNS), delimiter="\t", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    try:
        for path, content in (
            (out / TABLE, text.getvalue()),
            ((out / TABLE).with_suffix(".json"), to_json(COLUMNS)),
        ):
            with replacing(path) as temporary:
                temporary.write_text(content, encoding="utf-8")
    except OSError as error:
        raise OutputNotWritable(f"{out}: cannot write the table ({error.strerror or error})") from error
    return out / TABLE, len(rows)


def _row(image: BidsImage, sidecar: Path) -> dict[str, Any]:
    try:
        report = read_json(sidecar)["Report"]
        volumes = [lesion["volume_ml"] for lesion in report["lesions"]]
        known = None not in volumes
        return {
            "participant_id": image.participant,
            "session_id": image.session or NOT_AVAILABLE,
            "image": image.relative.as_posix(),
            "suffix": image.suffix,
            "score": report["score"],
            "candidates": len(volumes),
            "largest_ml": max(volumes) if volumes and known else NOT_AVAILABLE,
            "total_ml": round(sum(volumes), 6) if known else NOT_AVAILABLE,
            "threshold": report["threshold"]["value"],
            "model": report["model"],
            "version": report["versions"]["medzsad"],
        }
    except (KeyError, TypeError) as error:
        raise BadInput(f"{sidecar} is damaged; delete it, and run the level participant again.") from error
