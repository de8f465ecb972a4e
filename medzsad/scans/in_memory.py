"""What a program holds in memory to scans: arrays, tensors, and images of nibabel and SimpleITK.

None of these libraries is imported for the question: an object says by its type's module whose it is.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from medzsad.errors import BadInput
from medzsad.scans.affines import ASSUMED_AFFINE, dicom_affine, display_affine
from medzsad.scans.modality import OF_DICOM, guess_modality
from medzsad.scans.names import stem
from medzsad.scans.nifti import damage_said, scan_of_image
from medzsad.scans.scan import Modality, Scan
from medzsad.scans.tensors import display_levels, scan_of_tensor

KINDS = "a NumPy array, a MetaTensor, a nibabel image or a SimpleITK image"


def scan_in_memory(
    image: Any, *, affine: Any = None, volume: int | None = None, modality: Modality | str | None = None
) -> Scan:
    """Make a scan of an object (see :func:`medzsad.read_scan`, which checks it further).

    Raises:
        BadInput: another type, shape or data type, or an ``affine`` that does not belong.
    """
    libraries = {kind.__module__.partition(".")[0] for kind in type(image).__mro__}
    if isinstance(image, np.ndarray):
        return _of_array(image, affine, volume)
    if affine is not None:
        raise BadInput(
            f"affine= belongs to NumPy arrays; this {type(image).__name__} has its own: leave it out."
        )
    if "torch" in libraries:
        if volume not in (None, 0):
            raise BadInput(f"a tensor holds one volume: volume={volume} does not exist; leave it out.")
        return scan_of_tensor(image, modality=modality)
    if "nibabel" in libraries and hasattr(image, "dataobj"):
        return _of_nibabel(image, volume)
    if "SimpleITK" in libraries and hasattr(image, "GetDirection"):
        return _of_simpleitk(image, volume)
    raise BadInput(f"cannot read a {type(image).__name__} as a scan; give a path, {KINDS}.")


def _of_array(array: np.ndarray, affine: Any, volume: int | None) -> Scan:
    if array.dtype.kind not in "buif":
        raise BadInput(f"<array> holds values of {array.dtype}; give real numbers, such as float32.")
    given = None if affine is None else _checked_affine(affine)
    axes = array.ndim
    if not 2 <= axes <= 4:
        raise BadInput(f"<array> has {axes} axes; give a volume (X, Y, Z) or an image (rows, columns).")
    if volume is not None and axes == 4 and 0 <= volume < array.shape[3]:
        array = array[..., volume]
    elif volume not in (None, 0):
        raise BadInput(f"<array> has the shape {array.shape}: volume={volume} does not exist in it.")
    elif axes == 4 and array.shape[3] != 3:
        raise BadInput(f"<array> is 4D ({array.shape[3]} volumes); choose one with volume=, counted from 0.")
    channels = (3, 4) if array.dtype == np.uint8 else (3,)
    is_image = given is None and (axes == 2 or (axes == 3 and array.shape[2] in channels))
    if is_image and axes == 3 and array.dtype != np.uint8:
        raise BadInput(
            f"<array> of {array.shape} may be a colour image or 3 slices; give colours as "
            "uint8, or affine= with a volume."
        )
    if is_image:
        return _of_pixels(array)
    voxels = (array if array.ndim > 2 else array[:, :, None]).astype(np.float32, copy=False)
    return Scan(
        voxels=voxels,
        affine=np.eye(4) if given is None else given,
        modality=guess_modality(voxels) if voxels.size else Modality.MR,
        modality_source="guessed",
        name="array",
        source=Path("<array>"),
        has_geometry=given is not None,
        notes=(ASSUMED_AFFINE,) if given is None else (),
        details=_details(array, colour=voxels.ndim == 4, for_display=voxels.ndim == 4),
    )


def _of_pixels(array: np.ndarray) -> Scan:
    """Return a 2D image as Pillow, scikit-image and OpenCV hold it.

    (rows, columns), or (rows, columns, RGB).
    """
    colour = array.ndim == 3 and bool((array[..., :1] != array[..., 1:3]).any())
    pixels = array[..., :3] if colour else array if array.ndim == 2 else array[..., 0]
    return Scan(
        voxels=pixels[:, :, None].astype(np.float32),
        affine=display_affine()[:, [1, 0, 2, 3]],
        modality=Modality.RGB if colour else Modality.GREY,
        modality_source="guessed",
        name="array",
        source=Path("<array>"),
        is_2d=True,
        has_geometry=False,
        details=_details(pixels, colour=colour, for_display=True),
    )


def _details(array: np.ndarray, *, colour: bool, for_display: bool) -> dict[str, Any]:
    """Facts for the report; of images made for display also the values of black and white."""
    details: dict[str, Any] = {"format": "array", "stored_type": str(array.dtype)}
    stored = [0, 255] if array.dtype == np.uint8 else None
    levels = display_levels(array, stored, colour) if for_display and array.size else None
    return details if levels is None else details | {"range": levels}


def _checked_affine(affine: Any) -> np.ndarray:
    try:
        matrix = np.array(affine, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise BadInput("affine= must be 4 x 4 numbers, voxel index to world mm (RAS+).") from error
    if matrix.shape != (4, 4) or not np.array_equal(matrix[3], [0, 0, 0, 1]):
        raise BadInput("affine= must be 4 x 4 with 0 0 0 1 as its last row, voxel index to world mm (RAS+).")
    if not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < 1e-12:
        raise BadInput("affine= maps to no volume; give voxel index to world mm (RAS+).")
    return matrix


def _of_nibabel(image: Any, volume: int | None) -> Scan:
    import nibabel

    file = image.get_filename()
    source = Path(file) if file else Path("<nibabel image>")
    with damage_said(source):
        if not isinstance(image, nibabel.Nifti1Image):
            image = nibabel.Nifti1Image.from_image(image)
        scan = scan_of_image(image, source, stem(source) if file else "image", volume=volume)
    if not isinstance(scan.voxels.base, np.memmap) and not isinstance(scan.voxels, np.memmap):
        return scan
    return replace(scan, voxels=np.array(scan.voxels, order="K"))  # voxels must not change with the file


def _of_simpleitk(image: Any, volume: int | None) -> Scan:
    import SimpleITK as sitk  # noqa: N813 - its users' name; loaded already, for there is an image of it

    axes, components = image.GetDimension(), image.GetNumberOfComponentsPerPixel()
    if axes == 4:
        count = image.GetSize()[3]
        if volume is None or not 0 <= volume < count:
            raise BadInput(f"<SimpleITK image> is 4D ({count} volumes); choose one with volume=, from 0.")
        image = image[:, :, :, volume]
    elif volume not in (None, 0):
        raise BadInput(f"<SimpleITK image> holds one volume: volume={volume} does not exist; leave it out.")
    if axes not in (2, 3, 4) or components not in (1, 3) or "complex" in image.GetPixelIDTypeAsString():
        raise BadInput(
            f"<SimpleITK image> has {axes} axes and pixels of {image.GetPixelIDTypeAsString()} "
            f"({components} components); give 2D to 4D real numbers, or RGB."
        )
    array = sitk.GetArrayFromImage(image)  # (Z, Y, X[, C])
    space = image.GetDimension()
    voxels = array.transpose(*range(space - 1, -1, -1), *range(space, array.ndim)).astype(np.float32)
    details = {"format": "SimpleITK", "stored_type": image.GetPixelIDTypeAsString()}
    if array.dtype == np.uint8 and (space == 2 or components == 3):
        details["range"] = [0, 255]
    direction = np.reshape(image.GetDirection(), (space, space))
    if space == 2:
        voxels = voxels[:, :, None]
        grid = np.eye(4)
        grid[:2, :2], grid[:2, 3] = direction * image.GetSpacing(), image.GetOrigin()
        affine = display_affine() @ grid
    else:
        affine = dicom_affine(np.array(image.GetOrigin()), tuple(direction.T), image.GetSpacing())
    tag = image.GetMetaData("0008|0060").strip() if image.HasMetaDataKey("0008|0060") else ""
    declared = OF_DICOM.get(tag, Modality.GREY) if tag else None
    if components == 3 and declared is not Modality.US:
        declared = Modality.RGB
    elif declared is None and space == 2:
        declared = Modality.GREY
    return Scan(
        voxels=voxels,
        affine=affine,
        modality=declared or guess_modality(voxels),
        modality_source="dicom" if tag else "guessed",
        name="image",
        source=Path("<SimpleITK image>"),
        is_2d=space == 2,
        has_geometry=space == 3,
        details=details,
    )
