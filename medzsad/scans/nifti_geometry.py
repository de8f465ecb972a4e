"""Where a NIfTI file lies in the patient: its two matrices, its unit, and what is done if they are broken."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medzsad.errors import BadInput
from medzsad.scans.affines import LARGEST_MM, SMALLEST_MM, UNKNOWN_SIZE, maps_to_a_volume, voxel_sizes

if TYPE_CHECKING:
    import nibabel

UNITS = {0: "unknown", 1: "meter", 2: "mm", 3: "micron"}
MM_PER_UNIT = {"unknown": 1.0, "mm": 1.0, "meter": 1000.0, "micron": 0.001}
# Without a unit, what no scanner writes in mm is taken for another unit that the file does not name.
PLAUSIBLE_MM = (0.01, 100.0)


def nifti_geometry(
    image: nibabel.Nifti1Pair, path: Path
) -> tuple[np.ndarray, dict[str, Any], bool, list[str]]:
    """Return the affine of a NIfTI image and what results need to lie on it in every program.

    The sform counts, then the qform, then the voxel sizes alone. Where a voxel size is not known (0, NaN, or
    none that is possible), 1 stands for it.

    Returns:
        The affine (float64 (4, 4), voxel to RAS+ mm), the header fields for
        :func:`medzsad.results.map_files.write_volume`, whether the voxel size is known, and notes.

    Raises:
        BadInput: the file says where it lies, and neither matrix maps to a volume.
    """
    header = _current_header(image, path)
    notes: list[str] = []
    unit = UNITS.get(int(header["xyzt_units"]) & 0x07, "unknown")
    scale = MM_PER_UNIT[unit]
    known = _mendvoxel_sizes(header, image, scale)
    sform_code, qform_code = (int(header[name]) for name in ("sform_code", "qform_code"))
    sform, qform = (_in_mm(matrix, scale) for matrix in (header.get_sform(), _qform(header)))
    if sform_code and sform is not None:
        affine, known = sform, True
        apart = 0.05 * min(1.0, *voxel_sizes(affine))
        if qform_code and qform is not None and not np.allclose(sform, qform, rtol=0, atol=apart):
            notes.append("The file's sform and qform disagree: the sform is used.")
    elif qform_code and qform is not None:
        affine = qform
        if sform_code:
            notes.append("The file's sform maps to no volume: the qform is used.")
    elif sform_code or qform_code:
        raise BadInput(f"{path} has an affine that maps to no volume; correct its header.")
    else:
        affine = header.get_base_affine()
        affine[:3] *= scale
        notes.append(
            "The file does not say how it lies in the patient (sform and qform codes are 0): left, "
            "right, front and back are unknown."
        )
    if not known:
        notes.append(UNKNOWN_SIZE)
    elif unit == "unknown":
        known, note = judge_unitless(affine)
        notes.append(note)
    elif scale != 1.0:
        notes.append(f"The file's unit is {unit}: sizes are converted to mm, outputs keep the file's unit.")
    return affine, _carried(header, scale), known, notes


def judge_unitless(affine: np.ndarray) -> tuple[bool, str]:
    """Whether sizes without a unit can be mm, and a note on it."""
    sizes = voxel_sizes(affine)
    if PLAUSIBLE_MM[0] <= min(sizes) and max(sizes) <= PLAUSIBLE_MM[1]:
        return True, "The file names no unit of length: mm is assumed."
    words = " x ".join(f"{size:.4g}" for size in sizes)
    return False, (
        f"The file names no unit of length, and its voxels ({words}) cannot be in mm: the voxel size is not "
        "known, so sizes in mm and mL mean nothing."
    )


def _in_mm(matrix: np.ndarray | None, scale: float) -> np.ndarray | None:
    """Return the matrix in mm; None if it maps to no volume."""
    if matrix is None:
        return None
    affine = np.array(matrix, dtype=np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        affine[:3] *= scale
        return affine if maps_to_a_volume(affine) else None


def _current_header(image: nibabel.Nifti1Pair, path: Path) -> nibabel.Nifti1Header:
    """Return a copy of the header, with the affine of an image whose owner changed that in memory."""
    header = image.header.copy()
    if image.affine is None:
        raise BadInput(f"{path} has an affine that maps to no volume; give it one.")
    changed = np.asarray(image.affine, dtype=np.float64)
    header.set_data_shape(image.shape)
    with np.errstate(invalid="ignore"):
        same = np.allclose(header.get_best_affine(), changed, rtol=1e-5, atol=1e-9, equal_nan=True)
    if not same:
        header.set_sform(changed, code=int(header["sform_code"]) or 2)
        header["qform_code"] = 0
    return header


def _mendvoxel_sizes(header: nibabel.Nifti1Header, image: nibabel.Nifti1Pair, scale: float) -> bool:
    """Put 1 for voxel sizes that are none into the header; return whether there was no such size.

    nibabel has put 1 for those of 0 already, so those of a file are read anew.
    """
    sizes = stored = np.abs(header["pixdim"][1:4].astype(np.float64))
    if image.get_filename():
        holder = image.file_map.get("header", image.file_map["image"])
        with holder.get_prepare_fileobj(mode="rb") as file:
            raw = type(image.header).from_fileobj(file, check=False)["pixdim"][1:4]
        stored = np.where(sizes == 1, np.abs(raw.astype(np.float64)), sizes)
    with np.errstate(over="ignore", invalid="ignore"):
        good = (stored * scale >= SMALLEST_MM) & (stored * scale <= LARGEST_MM)  # NaN is neither
    header["pixdim"][1:4] = np.where(good, sizes, 1.0 / scale)
    return bool(good.all())


def _qform(header: nibabel.Nifti1Header) -> np.ndarray | None:
    """Return the qform; None where its quaternion is broken."""
    from nibabel.spatialimages import HeaderDataError

    try:
        return header.get_qform()
    except (HeaderDataError, ValueError):
        return None


def _carried(header: nibabel.Nifti1Header, scale: float) -> dict[str, Any]:
    """Return the fields as plain numbers, which hold a float32 exactly."""
    fields = ("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z")
    return {
        "nifti_version": 2 if int(header["sizeof_hdr"]) == 540 else 1,
        "xyzt_units": int(header["xyzt_units"]),
        "unit_scale": scale,
        "qform_code": int(header["qform_code"]),
        "sform_code": int(header["sform_code"]),
        "pixdim": header["pixdim"][:4].tolist(),
        **{name: float(header[name]) for name in fields},
        **{name: header[name].tolist() for name in ("srow_x", "srow_y", "srow_z")},
    }
