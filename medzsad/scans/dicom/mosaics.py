"""Siemens mosaics, and UIH's grids: a volume as one image, its slices side by side as tiles."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from medzsad.scans.dicom.files import UnusableFile, quiet, read_dataset
from medzsad.scans.dicom.frames import Frame

if TYPE_CHECKING:
    from pathlib import Path

    from pydicom import Dataset

SIEMENS, UIH = (0x0019, "SIEMENS MR HEADER", 0x0A), (0x0065, "Image Private Header", 0x50)


def is_mosaic(header: Dataset, path: Path) -> bool:
    """Return whether an image is a Siemens mosaic, by its type or by the private tag that counts its slices.

    Raises:
        UnusableFile: it is a grid of United Imaging, which keeps its slices' places to itself.
    """
    if (_private_count(header, *UIH) or 0) > 1:
        raise UnusableFile(
            path,
            "a UIH grid (slices side by side in one image), which is not read",
            "convert the original files with dcm2niix, and give the NIfTI file",
        )
    image_type = [str(part).upper() for part in header.get("ImageType") or []]
    return "MOSAIC" in image_type or (_private_count(header, *SIEMENS) or 0) > 1


def tiles_of(mosaic: Frame) -> list[Frame]:
    """Return the slices of a mosaic, each in its place.

    The tiles fill a square from the top left, row by row. The file's ImagePositionPatient is that of the
    mosaic as if it were one large slice around the same centre, so a slice's corner lies further inwards
    (as in nibabel's ``MosaicWrapper`` and dcm2niix).

    Raises:
        UnusableFile: the number of tiles is not known, or they do not fill the image.
    """
    header = read_dataset(mosaic.path, with_pixels=False)
    csa = _csa_header(header)
    count = _tile_count(header, csa)
    side = int(np.ceil(np.sqrt(count))) if count else 0
    if not count or mosaic.rows % side or mosaic.columns % side:
        raise UnusableFile(
            mosaic.path,
            "a Siemens mosaic (slices side by side in one image) that does not say how many slices it has",
            "convert the original files with dcm2niix, and give the NIfTI file",
        )
    rows, columns = mosaic.rows // side, mosaic.columns // side
    position = None
    step = np.zeros(3)
    if mosaic.position is not None and mosaic.axes and mosaic.spacing and mosaic.thickness:
        along_columns, along_rows = mosaic.axes
        inwards = mosaic.spacing[0] * (mosaic.columns - columns) / 2 * along_columns
        position = mosaic.position + inwards + mosaic.spacing[1] * (mosaic.rows - rows) / 2 * along_rows
        normal = np.array(_csa_values(csa, "SliceNormalVector") or mosaic.normal, dtype=float)
        step = mosaic.thickness * mosaic.normal * (-1 if normal @ mosaic.normal < 0 else 1)
    return [
        replace(
            mosaic,
            rows=rows,
            columns=columns,
            position=None if position is None else position + index * step,
            tile=(index // side * rows, index % side * columns),
        )
        for index in range(count)
    ]


def _csa_header(header: Dataset) -> dict[str, Any] | None:
    """Siemens' own header within the header, if it is there and can be read."""
    with quiet():  # nibabel warns that its DICOM readers are experimental; this one is not of its images
        from nibabel.nicom.csareader import get_csa_header

    try:
        return get_csa_header(header, "image")
    except Exception:  # its parser raises whatever it stumbles over
        return None


def _csa_values(csa: dict[str, Any] | None, name: str) -> list[Any]:
    return list(csa["tags"].get(name, {}).get("items") or []) if csa else []


def _tile_count(header: Dataset, csa: dict[str, Any] | None) -> int | None:
    values = _csa_values(csa, "NumberOfImagesInMosaic")
    try:
        return int(values[0]) if int(values[0]) > 0 else None
    except (IndexError, TypeError, ValueError):
        return _private_count(header, *SIEMENS)


def _private_count(header: Dataset, group: int, creator: str, element: int) -> int | None:
    try:
        count = int(header.private_block(group, creator)[element].value)
    except (KeyError, TypeError, ValueError):
        return None
    return count if count > 0 else None
