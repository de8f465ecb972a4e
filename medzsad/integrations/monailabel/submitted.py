"""The labels that annotators submitted, as data sets that :mod:`medzsad.training` takes."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
from monailabel.interfaces.datastore import Datastore

from medzsad.datasets.images import label_values, marks_of, same_grid
from medzsad.errors import BadInput, certain
from medzsad.scans.images2d import is_image
from medzsad.scans.nifti import is_nifti
from medzsad.scans.readers import read_scan
from medzsad.training.recipe import CutPlane, DataSource


@dataclass
class Submitted:
    """Labels on disk.

    Attributes:
        sources: for a recipe: the volumes, the 2D images, or both.
        labels: how many labels can be used.
        anomalous: in how many of these something is marked.
        left_out: why others cannot be used, a sentence each, without names.
    """

    sources: tuple[DataSource, ...] = ()
    labels: int = 0
    anomalous: int = 0
    left_out: list[str] = field(default_factory=list)


def collect(datastore: Datastore, folder: Path, *, plane: CutPlane = "auto") -> Submitted:
    """List the final labels, and bring those that are not on their image's grid there.

    Whatever is above 0 in a label is anomalous.

    Args:
        datastore: the scans; a remote one fetches its labels now.
        folder: where lists and converted labels are written.
        plane: in which volumes are cut.

    Raises:
        OutputNotWritable: if ``folder`` cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = Submitted()
    volumes: list[dict[str, str]] = []
    images: list[dict[str, str | int]] = []
    for number, row in enumerate(sorted(datastore.datalist(), key=lambda row: row["image"]), start=1):
        image, label = Path(row["image"]), Path(row["label"])
        try:
            read_scan(image)  # one scan that cannot be read must not end the training
            if is_image(image):
                path, marked = _flat_label(label, image, folder / f"label-{number:04d}.png")
                images.append({"img_path": str(image), "mask_path": str(path), "anomaly": int(marked)})
            else:
                path, marked = _volume_label(label, image, folder / f"label-{number:04d}.nii.gz")
                volumes.append({"image": str(image), "label": str(path)})
        except BadInput as error:
            reason = str(error).replace(str(image), "the image").replace(str(label), "the label")
            found.left_out.append(f"label {number}: {reason}")
            continue
        found.labels += 1
        found.anomalous += marked
    sources = []
    if volumes:
        (folder / "dataset.json").write_text(json.dumps({"test": volumes}), encoding="utf-8")
        sources.append(DataSource("volumes", str(folder / "dataset.json"), plane=plane))
    if images:
        base = folder / "images"
        base.mkdir(exist_ok=True)
        content = {"test": {"image": images}}
        (base / "meta.json").write_text(json.dumps(content), encoding="utf-8")
        sources.append(DataSource("folder", str(base)))
    found.sources = tuple(sources)
    return found


def _volume_label(label: Path, image: Path, converted: Path) -> tuple[Path, bool]:
    """Return a label on the grid of ``image`` as NIfTI, and whether anything is marked in it."""
    import nibabel

    if not is_nifti(image):
        raise BadInput(f"{image} is not NIfTI, as training needs it")
    if is_nifti(label) and not same_grid(label, image):
        return label, bool(marks_of(label_values(label), label, None).any())
    resampled = _resampled(label, image)
    # The image's own affine: through ITK it would lose its last digits.
    affine = cast("nibabel.Nifti1Image", nibabel.load(image)).affine
    nibabel.Nifti1Image(resampled.astype(np.uint8), affine).to_filename(converted)
    return converted, bool(resampled.any())


def _resampled(label: Path, image: Path) -> np.ndarray:
    """Return a label of any format and extent at the voxels of ``image``: bool (X, Y, Z)."""
    import SimpleITK

    try:
        reference = SimpleITK.ReadImage(str(image))
        source = SimpleITK.ReadImage(str(label))
        parts = [source]
        if source.GetNumberOfComponentsPerPixel() > 1:  # 3D Slicer's layers of overlapping segments
            count = source.GetNumberOfComponentsPerPixel()
            parts = [SimpleITK.VectorIndexSelectionCast(source, i) for i in range(count)]
        nearest = SimpleITK.sitkNearestNeighbor
        total: np.ndarray | None = None
        for part in parts:
            moved = SimpleITK.Resample(part, reference, SimpleITK.Transform(), nearest, 0.0)
            values: np.ndarray = SimpleITK.GetArrayFromImage(moved).T > 0.5
            total = values if total is None else total | values
    except RuntimeError as error:
        raise BadInput(f"{label} cannot be read, or not be brought onto its image's grid") from error
    return certain(total)


def _flat_label(label: Path, image: Path, converted: Path) -> tuple[Path, bool]:
    """Return a label of a 2D image as PNG (255 is marked), and whether anything is marked in it."""
    import SimpleITK
    from PIL import Image

    from medzsad.datasets.images import image_size

    try:
        values = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(label)))
    except RuntimeError as error:
        raise BadInput(f"{label} cannot be read") from error
    size = image_size(image)
    marks: np.ndarray = values.squeeze() > 0.5
    if marks.ndim == 3 and marks.shape[:2] == size:  # a picture in colour
        marks = np.asarray(marks.any(axis=-1))
    if marks.shape != size:
        raise BadInput(f"{label} is not of its image's size")
    Image.fromarray(marks.astype(np.uint8) * 255).save(converted)
    return converted, bool(marks.any())
