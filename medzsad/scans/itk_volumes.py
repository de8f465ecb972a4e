"""NRRD (.nrrd, .nhdr) and MetaImage (.mha, .mhd) files to scans.

SimpleITK reads them: MetaImage is ITK's own format, and of both formats ITK is what 3D Slicer uses, so that a
scan lies here where it lies there. What ITK keeps to itself (units, and whether sizes are stated at all) is
read from the header's text.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medzsad.errors import BadInput
from medzsad.limits import check_volume, require_file
from medzsad.scans.affines import LPS_TO_RAS, UNKNOWN_SIZE, maps_to_a_volume
from medzsad.scans.itk_headers import check_whole, header_fields, voxel_files
from medzsad.scans.library_warnings import one_line
from medzsad.scans.modality import guess_modality
from medzsad.scans.names import stem
from medzsad.scans.scan import Scan

if TYPE_CHECKING:
    import SimpleITK

NRRD_SUFFIXES = (".nrrd", ".nhdr")
META_SUFFIXES = (".mha", ".mhd")
SEGMENTATIONS = (".seg.nrrd", ".seg.nhdr")
MM_PER_UNIT = {"m": 1000.0, "cm": 10.0, "mm": 1.0, "um": 1e-3, "\N{MICRO SIGN}m": 1e-3, "nm": 1e-6}


def is_itk(path: Path) -> bool:
    """Whether the file name is that of an NRRD or MetaImage file."""
    return path.name.lower().endswith(NRRD_SUFFIXES + META_SUFFIXES)


def is_segmentation(path: Path) -> bool:
    """Whether the file name is that of a segmentation of 3D Slicer, which is no scan."""
    return path.name.lower().endswith(SEGMENTATIONS)


def read_itk(path: Path, *, volume: int | None = None) -> Scan:
    """Read an NRRD or MetaImage file of two to four dimensions.

    Args:
        path: ``.nrrd``, ``.nhdr``, ``.mha`` or ``.mhd``; of the last and ``.nhdr``, the voxels may lie in
            another file.
        volume: which volume of a 4D file, or which component of several, counted from 0.

    Returns:
        A float32 scan, affine in RAS+ mm. Three or four components of 8 bits are colours.

    Raises:
        BadInput: not such a file, cut short, 4D without ``volume``, or complex values.
    """
    reader = _opened(path)
    shape, affine = _shape(reader), _affine(reader)
    channels, colour = _volumes(reader)
    if channels == 1 or colour:
        if volume not in (None, 0):
            raise BadInput(
                f"{path} holds one volume: `volume` {volume} does not exist; leave the option out."
            )
    elif volume is None:
        raise BadInput(
            f"{path} is 4D ({channels} volumes); choose one with `volume` 0 to `volume` {channels - 1}."
        )
    elif not 0 <= volume < channels:
        raise BadInput(f"{path} has volumes 0 to {channels - 1}: `volume` {volume} does not exist.")
    array, stored_type = _array(reader, path)
    details: dict[str, Any] = {
        "format": "NRRD" if _is_nrrd(path) else "MetaImage",
        "stored_type": stored_type,
    }
    scale, known, notes = _units(path, len(reader.GetSize()))
    affine[:3] *= scale
    if not maps_to_a_volume(affine):
        raise BadInput(f"{path} has axes that map to no volume; correct its header.")
    if channels > 1 and not colour:
        details["volume"] = volume
        notes.append(f"Volume {volume} of 0 to {channels - 1} was read.")
        array = array[volume]
    elif colour:
        array = np.moveaxis(array[:3], 0, -1)
    else:
        array = array[0]
    voxels = np.ascontiguousarray(array.reshape(*shape, *([3] if colour else [])), dtype=np.float32)
    return Scan(
        voxels=voxels,
        affine=affine,
        modality=guess_modality(voxels),
        modality_source="guessed",
        name=stem(path),
        source=path,
        has_geometry=known,
        notes=tuple(notes),
        details=details,
    )


def itk_grid(path: Path) -> tuple[tuple[int, ...], np.ndarray]:
    """Return the shape of a file and its affine in mm, from the header alone.

    Raises:
        BadInput: as for :func:`read_itk`.
    """
    reader = _opened(path)
    affine = _affine(reader)
    affine[:3] *= _units(path, len(reader.GetSize()))[0]
    channels, colour = _volumes(reader)
    return (*_shape(reader), *([channels] if channels > 1 and not colour else [])), affine


def _opened(path: Path) -> SimpleITK.ImageFileReader:
    """Return a reader that knows the header."""
    import SimpleITK

    if is_segmentation(path):
        raise BadInput(f"{path} is a segmentation of 3D Slicer, not a scan; give the scan.")
    require_file(path)
    header = header_fields(path)
    place = voxel_files(path, header)
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    reader.SetImageIO("NrrdImageIO" if _is_nrrd(path) else "MetaImageIO")
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise BadInput(
            f"{path} is not a readable NRRD or MetaImage file ({_reason(error)}); NIfTI can be read, too."
        ) from error
    size = reader.GetSize()
    if not 2 <= len(size) <= 4 or 0 in size:
        raise BadInput(
            f"{path} is {' x '.join(map(str, size))} voxels; a scan has 3 axes, or 4 with `volume`."
        )
    check_volume(path, *(*size, 1)[:3], packed=True)
    if len(size) == 4 and reader.GetNumberOfComponents() > 1:
        raise BadInput(f"{path} has four axes of several values each; export one volume.")
    value = SimpleITK.Image([1] * len(size), reader.GetPixelID()).GetSizeOfPixelComponent()
    check_whole(path, header, place, float(np.prod(size)) * value * reader.GetNumberOfComponents())
    return reader


def _is_nrrd(path: Path) -> bool:
    return path.name.lower().endswith(NRRD_SUFFIXES)


def _shape(reader: SimpleITK.ImageFileReader) -> tuple[int, int, int]:
    size = (*reader.GetSize(), 1)
    return (size[0], size[1], size[2])


def _volumes(reader: SimpleITK.ImageFileReader) -> tuple[int, bool]:
    """How many volumes the file holds, and whether they are colours."""
    import SimpleITK

    size, components = reader.GetSize(), reader.GetNumberOfComponents()
    bytes_ = {SimpleITK.sitkUInt8, SimpleITK.sitkVectorUInt8}
    colour = components in (3, 4) and reader.GetPixelID() in bytes_
    return (size[3] if len(size) == 4 else 1) * components, colour


def _affine(reader: SimpleITK.ImageFileReader) -> np.ndarray:
    """Voxel to RAS+, in the file's unit."""
    dimension = len(reader.GetSize())
    spacing = np.array(reader.GetSpacing(), dtype=np.float64)
    direction = np.array(reader.GetDirection(), dtype=np.float64).reshape(dimension, dimension)
    affine, n = np.eye(4), min(dimension, 3)
    affine[:n, :n] = (direction * spacing)[:n, :n]
    affine[:n, 3] = reader.GetOrigin()[:n]
    return LPS_TO_RAS @ affine


def _array(reader: SimpleITK.ImageFileReader, path: Path) -> tuple[np.ndarray, str]:
    """(volumes, X, Y[, Z]), and what the file's values are."""
    import SimpleITK

    try:
        image = reader.Execute()
    except (RuntimeError, MemoryError) as error:
        raise BadInput(f"{path} cannot be read ({_reason(error)}); copy or export it again.") from error
    stored_type = image.GetPixelIDTypeAsString()
    if "complex" in stored_type:
        raise BadInput(f"{path} holds complex values; export their magnitude and try again.")
    array = SimpleITK.GetArrayFromImage(image)  # ([volume,] z, y, x[, component])
    dimension = image.GetDimension()
    array = np.moveaxis(array, -1, 0) if array.ndim > dimension else array
    if array.ndim == min(dimension, 3):
        array = array[None]
    return array.transpose(0, *range(array.ndim - 1, 0, -1)), stored_type


def _units(path: Path, axes: int) -> tuple[float, bool, list[str]]:
    """Mm per unit of the file, whether the voxel size is known, and notes."""
    header = header_fields(path)
    nrrd = _is_nrrd(path)
    stated = header.get("spacings" if nrrd else "elementspacing") or header.get("elementsize", "")
    count = len(re.findall(r"(?<!\S)[-+\d.][-+\d.e]*", stated))  # NaN, where there is none, is no number
    directions = header.get("space directions", "").count("(") if nrrd else 0
    known = max(directions, count) >= min(axes, 3)
    notes = [] if known else [UNKNOWN_SIZE]
    space = header.get("space", "")
    placed = not nrrd or re.fullmatch(r"(left|right|l|r).*", space.lower()) is not None
    if not placed:
        notes.append(
            "The file does not say how it lies in the patient: left, right, front and back are unknown."
        )
    units = re.findall(r"[^\s\"]+", header.get("space units" if nrrd else "distanceunits", ""))
    scales = {MM_PER_UNIT.get(unit.lower()) for unit in units}
    if not units or scales == {1.0}:
        return 1.0, known, notes
    scale = scales.pop() if len(scales) == 1 else None
    if scale is None:
        words = ", ".join(dict.fromkeys(units))
        note = (
            f"The file's unit ({one_line(words)}) is none that is read: the voxel size is not known, so "
            "sizes in mm and mL mean nothing."
        )
        return 1.0, False, [*notes, note]
    return scale, known, [*notes, f"The file's unit is {units[0]}: sizes are converted to mm."]


def _reason(error: BaseException) -> str:
    """Return the end of ITK's message, which is what went wrong."""
    if "determinant is 0" in str(error):
        return "its axes map to no volume"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return one_line(re.sub(r".*ERROR: |\(0x[0-9a-f]+\)|/\S+/", "", lines[-1] if lines else "")) or "damaged"
