"""The HTML report of a scan: one file that opens offline, to look through the scan under its map.

The page may load nothing: its content security policy forbids every connection, and only the scripts whose
hashes it names may run. What comes from a scan or a file name is escaped.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
import re
from importlib.resources import files
from pathlib import Path, PurePath, PureWindowsPath
from string import Template
from typing import TYPE_CHECKING, Any

import numpy as np

from medzsad.results.html.model_card import summarise_card
from medzsad.results.html.score_curve import curve_svg
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

# All three can be told apart with any colour vision, and in print.
COLORMAPS = ("plasma", "viridis", "cividis")
MAX_ROWS = 200
DIRECTIONS = ("RL", "AP", "SI")  # where a positive and a negative coordinate lie: the page's one convention
HINT_2D = "Click or drag: crosshair. Right-drag a box: grey levels."
HINT_3D = (
    "Click or drag: crosshair. Wheel: slices. Right-drag a box: grey levels. In 3D: drag to turn; the mask "
    "is shown. Radiological convention: patient right is on the left."
)
NO_IDENTITY = "asked for, but this scan's source states none"


def save_html_report(
    prediction: ScanPrediction, path: str | os.PathLike[str], *, with_identity: bool = False
) -> None:
    """Writes the report of a prediction.

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
    """The report as HTML; ``volumes`` are packed anew if they are not given."""
    document = report(prediction)
    volumes = viewer_volumes(prediction) if volumes is None else volumes
    scripts = {"viewer_library": asset("niivue/niivue.umd.js"), "script": asset("report.js")}
    notes = [*([volumes.note] if volumes.note else []), *document["notes"]]
    return Template(asset("report.html")).substitute(
        scripts,
        policy=content_policy(*scripts.values()),
        mark=mark("report", prediction.fingerprint),
        style=asset("report.css"),
        hint=HINT_2D if prediction.scan.is_2d else HINT_3D,
        name=html.escape(document["name"]),
        kind="2d" if prediction.scan.is_2d else "3d",
        badges=_badges(prediction, document),
        identity=_identity(prediction) if with_identity else "",
        colormaps="".join(f"<option>{name}</option>" for name in COLORMAPS),
        threshold=f"{prediction.threshold:.6f}",
        candidates=candidate_table(prediction),
        order=ORDER,
        windows=_window_choices(prediction),
        curves=_curves(prediction),
        card=_card(prediction),
        settings=_settings(document),
        scan=_definitions(_scan_facts(document)),
        notes="".join(f"<li>{html.escape(note)}</li>" for note in notes) or "<li>none</li>",
        versions=_definitions(document["versions"] | _seconds(document["timings_s"])),
        licences=html.escape(asset("niivue/VERSION").split("\n")[0] + "\n\n" + asset("niivue/LICENSE"))
        + "\n\n"
        + html.escape(asset("niivue/LICENSES-bundled.txt")),
        data=embed_json(_viewer_data(prediction, volumes)),
        scan_volume=volumes.scan,
        anomaly_volume=volumes.anomaly,
    )


def asset(name: str) -> str:
    """A text file of the package's ``results/assets``."""
    return files("medzsad").joinpath("results", "html", "assets", *name.split("/")).read_text("utf-8")


def content_policy(*scripts: str) -> str:
    """A content security policy that lets exactly these inline scripts run, and nothing be loaded."""
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
        for script in scripts
    )
    return (
        f"default-src 'none'; script-src {hashes or chr(39) + 'none' + chr(39)}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def embed_json(value: Any) -> str:
    """JSON that may stand in a script element: nothing in it can end the element or open a comment."""
    return json.dumps(value, allow_nan=False).replace("<", "\\u003c").replace(">", "\\u003e")


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
        "mask_voxels": int(np.count_nonzero(prediction.mask)),
        "counts_above": np.cumsum(counts[::-1])[::-1].tolist(),
        "voxel_ml": scan.voxel_volume / 1000 if scan.has_geometry else None,
        "start": list(first),
        "stack_axis": CanonicalView.of(scan).order[STACK_AXIS[prediction.planes[0]]],
        "image_numbers": [numbers.of(STACK, index) for index in range(len(numbers.numbers))],
        "is_ct": scan.modality is Modality.CT,
        "colormaps": tables,
    }


def _window_choices(prediction: ScanPrediction) -> str:
    """The grey levels that a CT is read in, as options whose value is ``LOW,HIGH`` in HU."""
    if prediction.scan.modality is not Modality.CT:
        return ""
    choices = {"": "as the detector saw it"} | {
        f"{centre - width / 2:g},{centre + width / 2:g}": f"{name} ({centre:g} / {width:g} HU)"
        for name, (centre, width) in WINDOWS.items()
    }
    options = "".join(f'<option value="{value}">{text}</option>' for value, text in choices.items())
    return f'<label for="window">Window</label><select id="window">{options}</select>'


def _best_slice(prediction: ScanPrediction) -> tuple[int, ...]:
    """The middle of the highest-scoring slice; of the volume if no slice was scored."""
    voxel = [size // 2 for size in prediction.scan.shape]
    best = max(prediction.slice_scores, key=lambda score: score.score, default=None)
    if best is not None:
        voxel[best.axis] = best.index
    return tuple(voxel)


def _badges(prediction: ScanPrediction, document: dict[str, Any]) -> str:
    count = len(prediction.lesions)
    facts = [
        ("image score" if prediction.scan.is_2d else "volume score", f"{prediction.score:.3f}"),
        ("threshold", f"{prediction.threshold:.3g}"),
        (f"lesion candidate{'' if count == 1 else 's'}", str(count)),
        ("model", str(document["model"])),
        ("modality", str(prediction.scan.modality).upper()),
    ]
    return "".join(f"<li><b>{html.escape(value)}</b> {html.escape(label)}</li>" for label, value in facts)


def _identity(prediction: ScanPrediction) -> str:
    from medzsad.scans.dicom.identity import read_identity

    facts = read_identity(prediction.scan)
    if not facts:
        return f'<section class="identity">Patient data: {NO_IDENTITY}.</section>'
    return f'<section class="identity"><h2>Patient data</h2>{_definitions(facts)}</section>'


def candidate_table(prediction: ScanPrediction, limit: int = MAX_ROWS) -> str:
    """Return the lesion candidates as an HTML table of at most ``limit`` rows, or a sentence."""
    if not prediction.lesions:
        return "<p>Nothing reaches the threshold over a large enough region.</p>"
    has_mm = prediction.scan.has_geometry
    columns = ["#", "Volume (mL)" if has_mm else "Pixels", "Mean", "Max"]
    axes = "x, y" if prediction.scan.shape[2] == 1 else "x, y, slice"
    columns += ["Highest at (mm)", "Size (mm)"] if has_mm else [f"Highest at ({axes})", "Size (pixels)"]
    head = "".join(f'<th scope="col">{column}</th>' for column in columns)
    rows = [
        f'<tr tabindex="0" data-voxel="{",".join(map(str, lesion.peak_voxel))}" '
        f'aria-label="lesion candidate {rank}: show it">'
        + "".join(f"<td>{cell}</td>" for cell in (rank, *_candidate_cells(lesion, prediction)))
        + "</tr>"
        for rank, lesion in enumerate(prediction.lesions[:limit], start=1)
    ]
    rest = len(prediction.lesions) - len(rows)
    more = f"<p>{rest} more in the JSON report.</p>" if rest > 0 else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>{more}"


def _candidate_cells(lesion: Lesion, prediction: ScanPrediction) -> list[str]:
    extent = [last - first + 1 for first, last in lesion.bounding_box]
    mean, peak = f"{lesion.mean:.2f}", f"{lesion.maximum:.2f}"
    if not prediction.scan.has_geometry:
        axes = 2 if prediction.scan.shape[2] == 1 else 3  # a stack whose sizes are not known has slices, too
        place = ", ".join(map(str, lesion.peak_voxel[:axes]))
        return [str(lesion.voxels), mean, peak, place, " x ".join(map(str, extent[:axes]))]
    place = " ".join(
        f"{ends[value < 0]} {abs(value):.1f}" for ends, value in zip(DIRECTIONS, lesion.peak_mm, strict=True)
    )
    size = " x ".join(f"{n * mm:.0f}" for n, mm in zip(extent, prediction.scan.spacing, strict=True))
    return [f"{lesion.volume_ml:.2f}", mean, peak, place, size]


def _curves(prediction: ScanPrediction) -> str:
    curves = []
    for plane in prediction.planes:
        scores = [score for score in prediction.slice_scores if score.plane == plane]
        if scores:
            slices = prediction.scan.shape[scores[0].axis]
            curves.append(curve_svg(plane, scores, slices, prediction.threshold))
    return "".join(curves) or "<p>No slice was scored.</p>"


def _card(prediction: ScanPrediction) -> str:
    card = summarise_card(prediction)
    return "".join(f"<p>{html.escape(text)}</p>" for text in card.paragraphs) + _definitions(card.facts)


def _settings(document: dict[str, Any]) -> str:
    facts = {"threshold": document["threshold"]["rule"], "intensity": document["intensity"]["description"]}
    return _definitions(facts | _flat(document["settings"]))


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


def _definitions(facts: dict[str, Any]) -> str:
    rows = (f"<dt>{html.escape(key)}</dt><dd>{html.escape(str(value))}</dd>" for key, value in facts.items())
    return f"<dl>{''.join(rows)}</dl>"
