"""NIfTI volumes in a scan's own grid."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medzsad.scans.scan import Scan

if TYPE_CHECKING:
    import nibabel


def nifti_image(array: np.ndarray, scan: Scan) -> nibabel.Nifti1Image:
    """Return ``array`` (X, Y, Z) with the scan's geometry: affine, orientation codes and units.

    Only these are carried over from the input's header: free-text fields may hold patient data.
    """
    import nibabel

    scale = float(scan.header.get("unit_scale", 1.0))  # mm per spatial unit of the input
    affine = scan.affine.copy()
    affine[:3] /= scale
    image = nibabel.Nifti1Image(array, affine)
    qform, sform = (
        int(scan.header.get(key, default)) for key, default in (("qform_code", 1), ("sform_code", 1))
    )
    # A file whose codes are both 0 gets them back as they were: pixdim alone then gives the same affine.
    image.set_qform(affine, code=qform)
    image.set_sform(affine, code=sform)
    image.header["xyzt_units"] = int(scan.header.get("xyzt_units", 2)) & 0x07  # without the time unit
    return image


def write_volume(array: np.ndarray, scan: Scan, path: Path) -> None:
    """Write :func:`nifti_image` to ``path``."""
    nifti_image(array, scan).to_filename(str(path))
