"""What ``--save-maps`` writes of one detector: all maps, and a sheet of the best and worst cases."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from medzsad.datasets.images import image_size, read_image
from medzsad.datasets.samples import Sample, VolumeSample
from medzsad.detectors.base import resize_maps
from medzsad.errors import OutputNotWritable
from medzsad.evaluation.contact_sheet import Tile, draw_sheet
from medzsad.evaluation.outcome import ClassOutcome
from medzsad.results.images2d import write_anomaly_png
from medzsad.results.nifti import write_volume
from medzsad.scans.pillow import open_picture
from medzsad.storage.atomic import replacing

if TYPE_CHECKING:
    from medzsad.scans.scan import Scan

SHOWN = 5  # cases per row of the contact sheet


class CaseFiles:
    """Stores the maps of one detector as they come, and draws cases in the end.

    Args:
        folder: where ``maps/`` and ``cases.png`` go.
        detector: its name, for the title.
        threshold: of the map, for outlines.
        title: of the data set.
    """

    def __init__(self, folder: Path, detector: str, threshold: float, title: str) -> None:
        self.folder = folder
        self.detector = detector
        self.threshold = threshold
        self.title = title
        self._names: dict[str, str] = {}  # name of a map, in lower case, to the id of its case
        self._draw: dict[str, Callable[[], tuple[np.ndarray, np.ndarray, np.ndarray | None]]] = {}

    def keep_image(self, sample: Sample, anomaly_map: np.ndarray) -> None:
        """Write the map of an image as 16-bit PNG of the image's own size."""
        path = self._path(sample.id, "png")
        whole = _resized(anomaly_map, image_size(sample.image)).T[:, :, None]
        _complete(path, lambda staged: write_anomaly_png(whole, staged))

        def parts() -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
            # Read again for the few that are drawn: all maps together may not fit into memory.
            with open_picture(path) as stored:
                heat = np.asarray(stored, dtype=np.float32) / 65535
            mask = sample.read_mask() if sample.mask is not None else None
            return np.moveaxis(read_image(sample.image), 0, -1), heat, mask

        self._draw[sample.id] = parts

    def keep_volume(
        self, sample: VolumeSample, scan: Scan, anomaly_map: np.ndarray, label: np.ndarray
    ) -> None:
        """Write the map of a volume as NIfTI in the scan's grid, and keep one slice for the sheet."""
        whole = anomaly_map.astype(np.float32, copy=False)
        _complete(self._path(sample.id, "nii.gz"), lambda staged: write_volume(whole, scan, staged))
        image, heat, truth = _telling_slice(scan, anomaly_map, label)
        self._draw[sample.id] = lambda: (image, heat, truth)

    def finish(self, classes: list[ClassOutcome]) -> None:
        """Draws the contact sheet."""
        cases = [case for one in classes for case in one.cases]
        sections = [(heading, [self._tile(case) for case in chosen]) for heading, chosen in _sections(cases)]
        page = draw_sheet(f"{self.title}: {self.detector}", sections)
        _complete(self.folder / "cases.png", lambda staged: Image.fromarray(page).save(staged))

    def _tile(self, case: dict[str, Any]) -> Tile:
        image, anomaly_map, mask = self._draw[case["id"]]()
        quality = _quality(case)
        figures = f"score {case['score']:.3f}" + ("" if quality is None else f"   AP {quality:.3f}")
        return Tile(image, anomaly_map, mask, self.threshold, (case["id"], figures))

    def _path(self, identifier: str, suffix: str) -> Path:
        """Where the map of a case goes: its id without what a file name should not hold."""
        plain = re.sub(r"[^\w.-]+", "_", identifier)
        name, number = plain, 1
        while self._names.setdefault(name.casefold(), identifier) != identifier:  # "a b" beside "a_b"
            number += 1
            name = f"{plain}-{number}"
        return self.folder / "maps" / f"{name}.{suffix}"


def _complete(path: Path, write: Callable[[Path], None]) -> None:
    """Lets ``write`` write to another name and renames that: the file appears complete or not at all."""
    try:
        with replacing(path, suffix="".join(path.suffixes[-2:])) as staged:
            write(staged)
    except OSError as error:
        raise OutputNotWritable(
            f"{path}: cannot be written ({error.strerror or error}); make room or choose another folder"
        ) from error


def _sections(cases: list[dict[str, Any]]) -> Iterable[tuple[str, list[dict[str, Any]]]]:
    """Best and worst anomalous cases (by their own pixels if there are masks), highest-scored normal ones."""
    anomalous = [case for case in cases if case["label"]]
    normal = sorted((case for case in cases if not case["label"]), key=lambda case: -case["score"])
    by_pixels = [case for case in anomalous if _quality(case) is not None]
    ranked = sorted(by_pixels or anomalous, key=lambda case: -(_quality(case) or case["score"]))
    what = "average precision inside the image" if by_pixels else "score"
    half = min(SHOWN, (len(ranked) + 1) // 2)
    yield f"anomalous, best found ({what})", ranked[:half]
    yield f"anomalous, worst found ({what})", ranked[half:][-SHOWN:][::-1]
    yield "normal, highest score", normal[:SHOWN]
    yield "normal, lowest score", normal[SHOWN:][-SHOWN:][::-1]


def _quality(case: dict[str, Any]) -> float | None:
    return case.get("pixel_ap", case.get("ap"))


def _telling_slice(
    scan: Scan, anomaly_map: np.ndarray, label: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the axial slice that holds most of the label (of the map where there is none), as displayed."""
    from medzsad.scans.intensity import intensity_scaling
    from medzsad.scans.slices import STACK_AXIS, CanonicalView, Plane, slice_image

    view = CanonicalView.of(scan)
    canonical = [view.to_canonical(array) for array in (scan.voxels, anomaly_map, label)]
    axis = STACK_AXIS[Plane.AXIAL]
    weight = canonical[2] if label.any() else canonical[1]
    index = int(weight.sum(axis=tuple(other for other in range(3) if other != axis)).argmax())
    voxels, heat, truth = (slice_image(array, Plane.AXIAL, index) for array in canonical)
    image = np.nan_to_num(intensity_scaling(scan)(np.ascontiguousarray(voxels)))
    return (
        np.ascontiguousarray(np.moveaxis(image, 0, -1).clip(0, 1)),
        np.ascontiguousarray(heat),
        np.ascontiguousarray(truth),
    )


def _resized(anomaly_map: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return resize_maps(torch.from_numpy(np.ascontiguousarray(anomaly_map))[None], size)[0].numpy()
