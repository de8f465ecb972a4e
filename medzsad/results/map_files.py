"""Maps and masks as files in a scan's own grid: NIfTI, PNG of 2D images, and segmentations of 3D Slicer."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medzsad.results.montage import OUTLINE
from medzsad.results.report import MASK_LABELS
from medzsad.scans.affines import LPS_TO_RAS
from medzsad.scans.own_results import SCAN, mark
from medzsad.scans.prepared import box_around
from medzsad.scans.scan import Scan
from medzsad.scans.slices import CanonicalView, planes_to_slice, slice_image

if TYPE_CHECKING:
    import nibabel

    from medzsad.results.prediction import ScanPrediction

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


def save_png(pixels: np.ndarray, path: Path, what: str, fingerprint: str = "", **options: int) -> None:
    """Write a marked PNG.

    Args:
        pixels: uint8 or uint16 (rows, columns), or uint8 (rows, columns, 3).
        path: the file.
        what: see :func:`~medzsad.scans.own_results.mark`.
        fingerprint: see :func:`~medzsad.scans.own_results.mark`.
        options: of Pillow's PNG writer.
    """
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    text = PngInfo()
    text.add_text("Software", mark(what, fingerprint))
    Image.fromarray(np.ascontiguousarray(pixels)).save(path, format="PNG", pnginfo=text, **options)


def as_displayed(array: np.ndarray, scan: Scan) -> np.ndarray:
    """Return ``array`` (X, Y, 1) on a 2D scan's grid as (columns, rows, 1) of the displayed image."""
    view = CanonicalView.of(scan)
    (plane,) = planes_to_slice("auto", view)
    return slice_image(view.to_canonical(array), plane, 0).swapaxes(0, 1)[:, :, None]


def write_anomaly_png(anomaly_map: np.ndarray, path: Path, fingerprint: str = "") -> None:
    """Write a map (columns, rows, 1) in [0, 1] as a 16-bit grey PNG: 65535 is 1."""
    grey = np.round(anomaly_map[:, :, 0].T.astype(np.float64) * 65535).astype(np.uint16)
    save_png(grey, path, "anomaly map", fingerprint)


def write_mask_png(mask: np.ndarray, path: Path, fingerprint: str = "") -> None:
    """Write a mask (columns, rows, 1) as an 8-bit grey PNG: 255 is suspicious."""
    save_png(mask[:, :, 0].T.astype(np.uint8) * 255, path, "mask", fingerprint)


def write_segmentation(prediction: ScanPrediction, path: Path) -> None:
    """Write the mask (uint8, 1 is suspicious) for 3D Slicer: one named, coloured segment, gzipped, in LPS.

    The header's fields are those of
    https://slicer.readthedocs.io/en/latest/developer_guide/modules/segmentations.html and the file format is
    https://teem.sourceforge.net/nrrd/format.html.
    """
    mask = np.asfortranarray(prediction.mask.astype(np.uint8))
    lps = LPS_TO_RAS @ prediction.affine  # its own inverse
    box = box_around(mask) if mask.any() else [(0, size) for size in mask.shape]
    extent = " ".join(f"{first} {end - 1}" for first, end in box)
    fields = {
        "type": "uint8",
        "dimension": "3",
        "space": "left-posterior-superior",
        "sizes": " ".join(map(str, mask.shape)),
        "space directions": " ".join(_vector(lps[:3, axis]) for axis in range(3)),
        "kinds": "domain domain domain",
        "encoding": "gzip",
        "space origin": _vector(lps[:3, 3]),
    }
    segment = {
        "Segment0_ID": "Segment_1",
        "Segment0_Name": MASK_LABELS["1"],
        "Segment0_NameAutoGenerated": "0",
        "Segment0_Color": " ".join(f"{value / 255:.6f}" for value in OUTLINE),
        "Segment0_ColorAutoGenerated": "0",
        "Segment0_Extent": extent,
        "Segment0_LabelValue": "1",
        "Segment0_Layer": "0",
        "Segment0_Tags": "Segmentation.Status:inprogress|",
        "Segmentation_ContainedRepresentationNames": "Binary labelmap|",
        "Segmentation_MasterRepresentation": "Binary labelmap",
        "Segmentation_SourceRepresentation": "Binary labelmap",
        "Segmentation_ReferenceImageExtentOffset": "0 0 0",
    }
    comment = f"# {mark('segmentation', prediction.fingerprint)}"
    lines = ["NRRD0004", comment, *(f"{key}: {value}" for key, value in fields.items())]
    lines += [f"{key}:={value}" for key, value in segment.items()]
    header = "\n".join(lines) + "\n\n"
    path.write_bytes(header.encode("ascii") + gzip.compress(mask.tobytes(order="F"), 6, mtime=0))


def _vector(values: np.ndarray) -> str:
    return "(" + ",".join(repr(float(value)) for value in values) + ")"
