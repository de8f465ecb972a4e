"""The HTML report of a scan, one file that opens offline to look through it; and the view of a notebook."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medzsad.detectors.normal_scores import in_words
from medzsad.results.dicom.source_frames import STACK, image_numbers
from medzsad.results.html.pages import asset, content_policy, embed_json, render_page
from medzsad.results.html.sections import (
    badges,
    candidate_table,
    curves,
    scan_facts,
    seconds,
    settings_of,
    summarise_card,
)
from medzsad.results.html.viewer_volumes import ViewerVolumes, viewer_volumes
from medzsad.results.lesions import ORDER
from medzsad.results.overlay import DISCLAIMER, render_overlay
from medzsad.results.report import report
from medzsad.scans.intensity import WINDOWS
from medzsad.scans.own_results import mark
from medzsad.scans.scan import Modality
from medzsad.scans.slices import STACK_AXIS, CanonicalView

if TYPE_CHECKING:
    from medzsad.results.prediction import ScanPrediction
    from medzsad.scans.scan import Scan

# All three can be told apart with any colour vision, and in print.
COLORMAPS = ("plasma", "viridis", "cividis")
NOTEBOOK_SLICES, NOTEBOOK_ROWS = 4, 10
NOTEBOOK_WIDTH = 1200  # of the picture in pixels: a notebook keeps it in its file


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
    from medzsad.scans.dicom.identity import read_identity

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
        badges=badges(prediction, document),
        context=in_words(prediction.score_context),
        identity=read_identity(prediction.scan) if with_identity else None,
        colormaps=COLORMAPS,
        threshold=prediction.threshold,
        candidates=candidate_table(prediction),
        order=ORDER,
        windows=_window_choices(scan),
        curves=curves(prediction),
        card=summarise_card(prediction),
        settings=settings_of(document),
        scan=scan_facts(document),
        notes=[*([volumes.note] if volumes.note else []), *document["notes"]],
        versions=document["versions"] | seconds(document["timings_s"]),
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
        mask_volume=volumes.mask,
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
        "mask_voxels": int(np.count_nonzero(prediction.mask)),
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


def render_notebook(prediction: ScanPrediction) -> str:
    """Return the overlay and the lesion candidates as HTML that needs nothing else; no patient data.

    Args:
        prediction: the prediction.
    """
    from PIL import Image

    picture = Image.fromarray(render_overlay(prediction, slices=NOTEBOOK_SLICES))
    picture.thumbnail((NOTEBOOK_WIDTH, 10 * NOTEBOOK_WIDTH))
    file = io.BytesIO()
    picture.save(file, format="PNG")
    return render_page(
        "notebook.html",
        line=repr(prediction),
        picture=file.getvalue(),
        candidates=candidate_table(prediction, NOTEBOOK_ROWS),
        disclaimer=DISCLAIMER,
    )
