"""NIfTI files to scans.

nibabel is called directly: MONAI's ``NibabelReader`` wraps the same loader, takes seconds to import, and
leaves 4D volumes, RGB data types and unit codes to the caller. :class:`medzsad.monai.MedzsadReader` is this
reader for MONAI.
"""

from __future__ import annotations

import contextlib
import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medzsad.errors import BadInput
from medzsad.scans.modality import guess_modality
from medzsad.scans.scan import Scan

if TYPE_CHECKING:
    import nibabel

SUFFIXES = (".nii", ".nii.gz")
MM_PER_UNIT = {"unknown": 1.0, "mm": 1.0, "meter": 1000.0, "micron": 0.001}


def is_nifti(path: Path) -> bool:
    """Whether the file name is that of a NIfTI file."""
    return path.name.lower().endswith(SUFFIXES)


def read_nifti(path: Path, *, volume: int | None = None) -> Scan:
    """Read a NIfTI file of two to four dimensions.

    Args:
        path: ``.nii`` or ``.nii.gz``.
        volume: which volume of a 4D file, counted from 0.

    Returns:
        A scan with scaled values (slope and intercept applied), float32. Its modality is guessed from the
        values.

    Raises:
        BadInput: not NIfTI, cut short, an axis of size zero, 4D without ``volume``, complex values, or an
            affine that maps to no volume.
    """
    compressed = path.name.lower().endswith(".gz")
    if compressed and not _has_gzip_magic(path):
        raise BadInput(f"{path} is not gzip-compressed; export it again, or rename it to .nii.")
    stem = path.name[: -len(".nii.gz")] if compressed else path.stem
    with damage_said(path):
        scan = scan_of_image(_load(path), path, stem, volume=volume)
        if compressed:
            _check_sum(path)
    return scan


@contextlib.contextmanager
def damage_said(path: Path) -> Iterator[None]:
    """Turn what nibabel raises on a damaged file, also when voxels are first asked for, into ``BadInput``."""
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError

    try:
        yield
    except (EOFError, zlib.error) as error:
        raise BadInput(
            f"{path} is cut short or damaged: its compressed data end early; copy or export it again."
        ) from error
    except gzip.BadGzipFile as error:
        raise BadInput(f"{path} is damaged: its check sum is wrong; copy or export it again.") from error
    except (ImageFileError, HeaderDataError) as error:
        raise BadInput(
            f"{path} is not a readable NIfTI file; check that it is complete and was written as NIfTI."
        ) from error
    except (OSError, ValueError) as error:
        raise BadInput(
            f"{path} cannot be read as NIfTI ({_one_line(error)}); copy or export it again."
        ) from error


def scan_of_image(image: nibabel.Nifti1Image, source: Path, name: str, *, volume: int | None = None) -> Scan:
    """Make a scan of an image that nibabel has opened or that was made in memory.

    Args:
        image: of two to four dimensions.
        source, name: see :class:`Scan`.
        volume: which volume of a 4D image, counted from 0.

    Raises:
        BadInput: see :func:`read_nifti`.
    """
    shape = _shape(image, source)
    voxels, volume_note = _voxels(image, shape, volume, source)
    affine, header, notes = _geometry(image, source)
    details = {"format": "NIfTI", "stored_type": str(image.get_data_dtype())}
    if volume_note:
        notes.append(volume_note)
        details["volume"] = volume
    return Scan(
        voxels=voxels,
        affine=affine,
        modality=guess_modality(voxels),
        modality_source="guessed",
        name=name,
        source=source,
        header=header,
        notes=tuple(notes),
        details=details,
    )


def _has_gzip_magic(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _check_sum(path: Path) -> None:
    """Raise ``BadGzipFile`` on a wrong check sum: nibabel stops reading before gzip would compare it."""
    with gzip.open(path) as file:
        while file.read(1 << 22):
            pass


def _load(path: Path) -> nibabel.Nifti1Image:
    import nibabel

    image = nibabel.load(path, mmap=False)  # voxels must not change with the file
    if not isinstance(image, nibabel.Nifti1Image):  # Nifti2Image derives from it
        raise BadInput(f"{path} is {type(image).__name__}, not NIfTI; convert it to .nii.gz.")
    return image


def _shape(image: nibabel.Nifti1Image, path: Path) -> tuple[int, ...]:
    """The shape without trailing axes of size 1, at least two axes long."""
    shape = list(image.shape)
    text = " x ".join(map(str, shape))
    if 0 in shape:
        raise BadInput(f"{path} holds no voxels: its shape is {text}; export it again.")
    while len(shape) > 3 and shape[-1] == 1:
        shape.pop()
    if not 2 <= len(shape) <= 4:
        raise BadInput(f"{path} has {len(shape)} axes ({text}); a scan has 3, or 4 with --volume.")
    return tuple(shape)


def _voxels(
    image: nibabel.Nifti1Image, shape: tuple[int, ...], volume: int | None, path: Path
) -> tuple[np.ndarray, str]:
    """Voxels as (X, Y, Z) or (X, Y, Z, 3) float32, and a note on the volume that was chosen."""
    dtype = image.get_data_dtype()
    if np.issubdtype(dtype, np.complexfloating):
        raise BadInput(f"{path} holds complex values; export their magnitude and try again.")
    note = ""
    source = image.dataobj
    if len(shape) == 4:
        if volume is None:
            raise BadInput(
                f"{path} is 4D ({shape[3]} volumes); choose one with --volume 0 to --volume {shape[3] - 1}."
            )
        if not 0 <= volume < shape[3]:
            raise BadInput(f"{path} has volumes 0 to {shape[3] - 1}: --volume {volume} does not exist.")
        source = source[:, :, :, volume]
        note = f"Volume {volume} of 0 to {shape[3] - 1} was read."
    elif volume not in (None, 0):
        raise BadInput(f"{path} holds one volume: --volume {volume} does not exist; leave the option out.")
    if source is image.dataobj and not dtype.fields and hasattr(source, "get_unscaled"):
        # The same as asking nibabel for float32, which scales in float64: four times the memory.
        array = source.get_unscaled().astype(np.float32, copy=False)
        if (source.slope, source.inter) != (1.0, 0.0):
            array *= np.float32(source.slope)
            array += np.float32(source.inter)
    else:
        array = np.asanyarray(source)
    spatial = (*shape[:2], shape[2] if len(shape) > 2 else 1)
    if dtype.fields:  # RGB24 and RGBA32 are stored as named bytes; alpha says nothing about the patient
        array = np.stack([array[name].reshape(spatial) for name in ("R", "G", "B")], axis=-1)
        return array.astype(np.float32), note
    return array.reshape(spatial, order="A").astype(np.float32, copy=False), note


def _geometry(image: nibabel.Nifti1Image, path: Path) -> tuple[np.ndarray, dict[str, object], list[str]]:
    """Affine in mm, the header fields that outputs carry over, and notes."""
    header = image.header
    affine = np.array(np.eye(4) * np.nan if image.affine is None else image.affine, dtype=np.float64)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise BadInput(f"{path} has an affine that maps to no volume; correct its header.")
    sform, sform_code = header.get_sform(coded=True)
    qform, qform_code = _qform(header)
    notes = []
    if not sform_code and not qform_code:
        notes.append(
            "The file does not say how it lies in the patient (sform and qform codes are 0): left, "
            "right, front and back are unknown."
        )
    elif sform_code and qform_code and qform is not None and not np.allclose(sform, qform, rtol=0, atol=0.05):
        notes.append("The file's sform and qform disagree: the sform is used.")
    try:
        unit = header.get_xyzt_units()[0]
    except KeyError:  # a unit code that the standard does not know
        unit = "unknown"
    scale = MM_PER_UNIT[unit]
    if scale != 1.0:
        affine[:3] *= scale
        notes.append(f"The file's unit is {unit}: sizes are converted to mm, outputs keep the file's unit.")
    carried = {
        "xyzt_units": int(header["xyzt_units"]),
        "qform_code": int(qform_code),
        "sform_code": int(sform_code),
        "unit_scale": scale,
    }
    return affine, carried, notes


def _qform(header: nibabel.Nifti1Header) -> tuple[np.ndarray | None, int]:
    """The qform and its code; no qform where its quaternion is broken."""
    from nibabel.spatialimages import HeaderDataError

    try:
        return header.get_qform(coded=True)
    except (HeaderDataError, ValueError):
        return None, int(header["qform_code"])


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:150] or type(error).__name__
