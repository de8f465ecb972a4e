"""The HTML report of a scan: one file that opens offline, to look through the scan under its map."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path, PurePath, PureWindowsPath
from typing import TYPE_CHECKING, Any

import numpy as np

from medzsad.results.html.model_card import summarise_card
from medzsad.results.html.pages import asset, content_policy, embed_json, render_page
from medzsad.results.html.score_curve import score_curve
from medzsad.results.html.viewer_volumes import ViewerVolumes, viewer_volumes
from medzsad.results.image_numbers import STACK, image_numbers
from medzsad.results.lesions import ORDER
from medzsad.results.marks import mark
from medzsad.results.report import report
from medzsad.scans.intensity import WINDOWS
from medzsad.scans.scan import Modality
from medzsad.scans.slices import STACK_AXIS, CanonicalView

if TYPE_CHECKING:
    from medzsad.results.lesions import Lesion
    from medzsad.results.prediction import ScanPrediction
    from medzsad.scans.scan import Scan

# All three can be told apart with any colour vision, and in print.
COLORMAPS = ("plasma", "viridis", "cividis")
MAX_ROWS = 200
DIRECTIONS = ("RL", "AP", "SI")  # where a positive and a negative coordinate lie: the page's one convention


def save_html_report(
    prediction: ScanPrediction, path: str | os.PathLike[str], *, with_identity: bool = False
) -> None:
    """Write the report of a prediction.

    Args:
        prediction: the prediction.
        path: the file.
        with_identity: also print patient name, patient ID and study date; they are read anew from the DICOM
            source, for scans do not carry them.
    """
    Path(path).write_text(render_html_report(prediction, with_identity=with_identity), "utf-8", newline="\n")


def render_html_report(
    prediction: ScanPrediction, *, with_identity: bool = False, volumes: ViewerVolumes | None = None
) -> str:
    """Return the report as HTML; ``volumes`` are packed anew if they are not given."""
    document = report(prediction)
    volumes = viewer_volumes(prediction) if volumes is None else volumes
    scripts = {"viewer_library": asset("niivue/niivue.umd.js"), "script": asset("report.js")}
    scan = prediction.scan
    return render_page(
        "report.html",
        **scripts,
        policy=content_policy(*scripts.values()),
        mark=mark("report", prediction.fingerprint),
        style=asset("report.css"),
        is_2d=scan.is_2d,
        name=document["name"],
        badges=_badges(prediction, document),
        identity=_identity(prediction) if with_identity else None,
        colormaps=COLORMAPS,
        threshold=prediction.threshold,
        candidates=candidate_table(prediction),
        order=ORDER,
        windows=_window_choices(scan),
        curves=_curves(prediction),
        card=summarise_card(prediction),
        settings=_settings(document),
        scan=_scan_facts(document),
        notes=[*([volumes.note] if volumes.note else []), *document["notes"]],
        versions=document["versions"] | _seconds(document["timings_s"]),
        licences="\n\n".join(
            (
                asset("niivue/VERSION").split("\n")[0],
                asset("niivue/LICENSE"),
                asset("niivue/LICENSES-bundled.txt"),
            )
        ),
        data=embed_json(_viewer_data(prediction, volumes)),
        scan_volume=volumes.scan,
        anomaly_volume=volumes.anomaly,
    )


def _viewer_data(prediction: ScanPrediction, volumes: ViewerVolumes) -> dict[str, Any]:
    import matplotlib

    from medzsad.results.montage import COLORMAP_START

    scan = prediction.scan
    levels = np.floor(prediction.anomaly_map * 255).astype(np.uint8)
    counts = np.bincount(levels.ravel(), minlength=256)
    counts[0] = 0  # the background is never suspicious
    tables = {
        name: np.round(matplotlib.colormaps[name](np.linspace(COLORMAP_START, 1, 256))[:, :3] * 255)
        .astype(int)
        .T.tolist()
        for name in COLORMAPS
    }
    numbers = image_numbers(scan)
    first = prediction.lesions[0].peak_voxel if prediction.lesions else _best_slice(prediction)
    return {
        "affine": scan.affine.tolist(),
        "inverse": np.linalg.inv(scan.affine).tolist(),
        "shape": list(scan.shape),
        "viewer_shape": list(volumes.shape),
        "is_2d": scan.is_2d,
        "plane": str(prediction.planes[0]),
        "has_geometry": scan.has_geometry,
        "window": list(volumes.window),
        "threshold": prediction.threshold,
        "mask_voxels": int(np.count_nonzero(prediction.above_threshold)),
        "counts_above": np.cumsum(counts[::-1])[::-1].tolist(),
        "voxel_ml": scan.voxel_volume / 1000 if scan.has_geometry else None,
        "start": list(first),
        "stack_axis": CanonicalView.of(scan).order[STACK_AXIS[prediction.planes[0]]],
        "image_numbers": [numbers.of(STACK, index) for index in range(len(numbers.numbers))],
        "is_ct": scan.modality is Modality.CT,
        "colormaps": tables,
    }


def _window_choices(scan: Scan) -> dict[str, str]:
    """Return the grey levels that a CT is read in: ``LOW,HIGH`` in HU, and their name."""
    if scan.modality is not Modality.CT:
        return {}
    return {"": "as the detector saw it"} | {
        f"{centre - width / 2:g},{centre + width / 2:g}": f"{name} ({centre:g} / {width:g} HU)"
        for name, (centre, width) in WINDOWS.items()
    }


def _best_slice(prediction: ScanPrediction) -> tuple[int, ...]:
    """Return the middle of the highest-scoring slice; of the volume if no slice was scored."""
    voxel = [size // 2 for size in prediction.scan.shape]
    best = max(prediction.slice_scores, key=lambda score: score.score, default=None)
    if best is not None:
        voxel[best.axis] = best.index
    return tuple(voxel)


def _badges(prediction: ScanPrediction, document: dict[str, Any]) -> list[tuple[str, str]]:
    count = len(prediction.lesions)
    return [
        (f"{prediction.score:.3f}", "image score" if prediction.scan.is_2d else "volume score"),
        (f"{prediction.threshold:.3g}", "threshold"),
        (str(count), f"lesion candidate{'' if count == 1 else 's'}"),
        (str(document["model"]), "model"),
        (str(prediction.scan.modality).upper(), "modality"),
    ]


def _identity(prediction: ScanPrediction) -> dict[str, str]:
    from medzsad.scans.dicom.identity import read_identity

    return read_identity(prediction.scan)


def candidate_table(prediction: ScanPrediction, limit: int = MAX_ROWS) -> dict[str, Any]:
    """Return the columns of the lesion candidates, at most ``limit`` rows of them, and how many
    more there are and are hidden."""
    has_mm = prediction.scan.has_geometry
    axes = "x, y" if prediction.scan.shape[2] == 1 else "x, y, slice"
    columns = ["#", "Score", "Volume (mL)" if has_mm else "Pixels", "Mean", "Max"]
    columns += ["Highest at (mm)", "Size (mm)"] if has_mm else [f"Highest at ({axes})", "Size (pixels)"]
    rows = [
        {"voxel": lesion.peak_voxel, "cells": (rank, *_candidate_cells(lesion, prediction))}
        for rank, lesion in enumerate(prediction.lesions[:limit], start=1)
    ]
    rest, hidden = len(prediction.lesions) - len(rows), len(prediction.hidden_lesions)
    return {"columns": columns, "rows": rows, "rest": rest, "hidden": hidden}


def _candidate_cells(lesion: Lesion, prediction: ScanPrediction) -> list[str]:
    extent = [last - first + 1 for first, last in lesion.bounding_box]
    score, mean, peak = (f"{value:.2f}" for value in (lesion.score, lesion.mean, lesion.maximum))
    if not prediction.scan.has_geometry:
        axes = 2 if prediction.scan.shape[2] == 1 else 3  # a stack whose sizes are not known has slices, too
        place = ", ".join(map(str, lesion.peak_voxel[:axes]))
        return [score, str(lesion.voxels), mean, peak, place, " x ".join(map(str, extent[:axes]))]
    place = " ".join(
        f"{ends[value < 0]} {abs(value):.1f}" for ends, value in zip(DIRECTIONS, lesion.peak_mm, strict=True)
    )
    size = " x ".join(f"{n * mm:.0f}" for n, mm in zip(extent, prediction.scan.spacing, strict=True))
    return [score, f"{lesion.volume_ml:.2f}", mean, peak, place, size]


def _curves(prediction: ScanPrediction) -> list[dict[str, Any]]:
    curves = []
    for plane in prediction.planes:
        scores = [score for score in prediction.slice_scores if score.plane == plane]
        if scores:
            slices = prediction.scan.shape[scores[0].axis]
            curves.append(score_curve(plane, scores, slices, prediction.threshold))
    return curves


def _settings(document: dict[str, Any]) -> dict[str, str]:
    facts = {"threshold": document["threshold"]["rule"], "intensity": document["intensity"]["description"]}
    return facts | _flat(document["settings"])


def _scan_facts(document: dict[str, Any]) -> dict[str, str]:
    scan = document["scan"]
    facts = {"voxels": " x ".join(map(str, scan["shape"]))}
    if scan["spacing_mm"] is not None:
        facts["spacing (mm)"] = " x ".join(f"{value:.4g}" for value in scan["spacing_mm"])
        facts["orientation"] = scan["orientation"]
    facts["modality"] = f"{scan['modality']} ({scan['modality_source']})"
    # The series' UID leads to the patient; it is in the JSON, not on a page that is passed on.
    return facts | _flat({name: value for name, value in scan["details"].items() if name != "series_uid"})


def _seconds(timings: dict[str, float]) -> dict[str, str]:
    return {name.removesuffix("_s").replace("_", " "): f"{value:.2f} s" for name, value in timings.items()}


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as one level; of files only names are told, for people name folders after patients."""
    facts: dict[str, str] = {}
    for key, item in value.items():
        if isinstance(item, dict):
            facts |= _flat(item, f"{prefix}{key}.")
        elif isinstance(item, str):
            facts[prefix + key] = _without_folder(item)
        else:
            text = json.dumps(item)
            facts[prefix + key] = text if len(text) <= 80 else text[:77] + "..."
    return facts


def _without_folder(text: str) -> str:
    if re.match(r"[A-Za-z]:[\\/]|\\\\", text):
        return PureWindowsPath(text).name
    return PurePath(text).name if text.startswith(("/", "~", "./", "../")) else text
