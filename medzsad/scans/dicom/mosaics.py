"""Siemens mosaics: a volume as one image, its slices side by side as tiles."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from medzsad.scans.dicom.files import UnusableFile, quiet, read_dataset
from medzsad.scans.dicom.frames import Frame

if TYPE_CHECKING:
    from pydicom import Dataset


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
        value = values[0] if values else header.private_block(0x0019, "SIEMENS MR HEADER")[0x0A].value
        return int(value) if int(value) > 0 else None
    except (KeyError, TypeError, ValueError):
        return None
