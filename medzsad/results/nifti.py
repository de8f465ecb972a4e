"""NIfTI volumes in a scan's own grid."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medzsad.results.marks import mark
from medzsad.scans.own_results import SCAN
from medzsad.scans.scan import Scan

if TYPE_CHECKING:
    import nibabel

MATRICES = (
    "pixdim", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z",
    "srow_x", "srow_y", "srow_z",
)  # fmt: skip
MAX_NIFTI1_SIZE = 32767


def nifti_image(
    array: np.ndarray, scan: Scan, *, what: str = "anomaly map", fingerprint: str = ""
) -> nibabel.Nifti1Image:
    """Return ``array`` (X, Y, Z) as a NIfTI image where the scan lies.

    Of a NIfTI scan the image has the version, the unit, and both matrices with their codes, to the bit: some
    programs take the sform, others the qform. Other scans, and those whose affine was changed since they were
    read, get both from their affine, in mm. Free-text fields, which may hold patient data, stay behind.

    Args:
        array: of the scan's shape.
        scan: gives the geometry.
        what: stands in the file's description; the display range of a map or mask is 0 to 1.
        fingerprint: of the prediction, see :attr:`ScanPrediction.fingerprint`.
    """
    import nibabel

    version2 = scan.header.get("nifti_version") == 2 or max(array.shape) > MAX_NIFTI1_SIZE
    image_class = nibabel.Nifti2Image if version2 else nibabel.Nifti1Image
    header = image_class.header_class()
    if not _carry_over(scan, header):
        _set_both(scan, header)
    header["xyzt_units"] = int(scan.header.get("xyzt_units", 2)) & 0x07  # without the time unit
    header["descrip"] = mark(what, fingerprint)
    if what != SCAN:
        header["cal_min"], header["cal_max"] = 0, 1
    header.set_data_dtype(array.dtype)
    header.set_data_shape(array.shape)
    # The header's own affine, so that the image leaves its matrices alone.
    return image_class(array, header.get_best_affine(), header)


def write_volume(
    array: np.ndarray, scan: Scan, path: Path, *, what: str = "anomaly map", fingerprint: str = ""
) -> None:
    """Write :func:`nifti_image` to ``path`` (``.nii`` or ``.nii.gz``)."""
    nifti_image(array, scan, what=what, fingerprint=fingerprint).to_filename(str(path))


def _scale(scan: Scan) -> float:
    """Mm per spatial unit of the input."""
    return float(scan.header.get("unit_scale", 1.0))


def _carry_over(scan: Scan, header: nibabel.Nifti1Header) -> bool:
    """Put the scan's own matrices and codes into a header; return whether they still are its affine."""
    if "srow_x" not in scan.header:
        return False
    pixdim = header["pixdim"].copy()
    pixdim[:4] = scan.header["pixdim"]
    for name in (*MATRICES, "qform_code", "sform_code"):
        header[name] = pixdim if name == "pixdim" else scan.header[name]
    affine = header.get_best_affine()
    if not (scan.header["qform_code"] or scan.header["sform_code"]):
        header.set_data_shape(scan.shape)  # which the origin follows from
        affine = header.get_base_affine()
    affine[:3] *= _scale(scan)
    return bool(np.allclose(affine, scan.affine, rtol=1e-5, atol=1e-4 * min(scan.spacing)))


def _set_both(scan: Scan, header: nibabel.Nifti1Header) -> None:
    affine = scan.affine.copy()
    affine[:3] /= _scale(scan)
    codes = {name: int(scan.header.get(f"{name}_code", 1)) for name in ("qform", "sform")}
    header.set_qform(affine, code=codes["qform"], strip_shears=True)
    header.set_sform(affine, code=codes["sform"])
    if not np.allclose(header.get_qform(), affine, rtol=1e-3, atol=1e-3 * min(scan.spacing) / _scale(scan)):
        # A qform cannot hold oblique axes; a wrong one would be believed.
        header["qform_code"] = 0
        header["sform_code"] = codes["sform"] or 1
