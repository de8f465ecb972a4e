"""NIfTI and FreeSurfer (MGH, MGZ) files to scans.

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
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from medzsad.errors import BadInput
from medzsad.scans.affines import UNKNOWN_SIZE, maps_to_a_volume
from medzsad.scans.claims import check_nifti
from medzsad.scans.library_warnings import heard, one_line
from medzsad.scans.modality import guess_modality
from medzsad.scans.names import stem
from medzsad.scans.nifti_geometry import nifti_geometry
from medzsad.scans.scan import Scan

if TYPE_CHECKING:
    import nibabel

SUFFIXES = (".nii", ".nii.gz")
PAIR_SUFFIXES = (".hdr", ".hdr.gz", ".img", ".img.gz")  # header and voxels in two files
MGH_SUFFIXES = (".mgz", ".mgh")


def is_nifti(path: Path) -> bool:
    """Whether the file name is that of a NIfTI file; of a pair, of either half."""
    return path.name.lower().endswith(SUFFIXES + PAIR_SUFFIXES)


def is_mgh(path: Path) -> bool:
    """Whether the file name is that of a FreeSurfer volume."""
    return path.name.lower().endswith(MGH_SUFFIXES)


def read_nifti(path: Path, *, volume: int | None = None) -> Scan:
    """Read a NIfTI or FreeSurfer file of two to four dimensions.

    Args:
        path: ``.nii``, ``.nii.gz``, one file of a ``.hdr`` and ``.img`` pair, ``.mgz`` or ``.mgh``.
        volume: which volume of a 4D file, counted from 0.

    Returns:
        A scan with scaled values (slope and intercept applied), float32. Its modality is guessed from the
        values.

    Raises:
        BadInput: not such a file, cut short, an axis of size zero, 4D without ``volume``, complex values, or
            an affine that maps to no volume.
    """
    longest = check_nifti(path)
    with damage_said(path), heard("nibabel.global") as warnings:
        scan = scan_of_image(_load(path), path, stem(path), volume=volume)
        if _is_compressed(path):
            _check_sum(path, longest)
    return scan.with_notes(*warnings)


def scan_of_image(
    image: nibabel.spatialimages.SpatialImage, source: Path, name: str, *, volume: int | None = None
) -> Scan:
    """Make a scan of an image that nibabel has opened or that was made in memory.

    Args:
        image: NIfTI or MGH, of two to four dimensions.
        source, name: see :class:`Scan`.
        volume: which volume of a 4D image, counted from 0.

    Raises:
        BadInput: see :func:`read_nifti`.
    """
    shape = _shape(image, source)
    voxels, volume_note = _voxels(image, shape, volume, source)
    affine, header, known, notes = _geometry(image, source)
    details: dict[str, Any] = {"format": _format(source), "stored_type": str(image.get_data_dtype())}
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
        has_geometry=known,
        header=header,
        notes=tuple(notes),
        details=details,
    )


def nifti_grid(path: Path) -> tuple[tuple[int, ...], np.ndarray]:
    """Return the shape of a file and its affine in mm, from the header alone.

    Raises:
        BadInput: as for :func:`read_nifti`.
    """
    with damage_said(path), heard("nibabel.global"):
        image = _load(path)
        return _shape(image, path), _geometry(image, path)[0]


@contextlib.contextmanager
def damage_said(path: Path) -> Iterator[None]:
    """Turn what nibabel raises on a damaged file, also when voxels are first asked for, into ``BadInput``."""
    from nibabel.filebasedimages import ImageFileError
    from nibabel.freesurfer.mghformat import MGHError
    from nibabel.spatialimages import HeaderDataError

    kind = _format(path)
    try:
        yield
    except (EOFError, zlib.error) as error:
        raise BadInput(
            f"{path} is cut short or damaged: its compressed data end early; copy or export it again."
        ) from error
    except gzip.BadGzipFile as error:
        raise BadInput(f"{path} is damaged: its check sum is wrong; copy or export it again.") from error
    except (ImageFileError, HeaderDataError, MGHError) as error:
        raise BadInput(
            f"{path} is not a readable {kind} file; check that it is complete and was written as {kind}."
        ) from error
    except FileNotFoundError as error:
        raise BadInput(f"{path} has no second half: a .hdr and its .img belong together.") from error
    except (OSError, ValueError) as error:
        raise BadInput(
            f"{path} cannot be read as {kind} ({one_line(error)}); copy or export it again."
        ) from error


def _format(path: Path) -> str:
    return "MGH" if is_mgh(path) else "NIfTI"


def _is_compressed(path: Path) -> bool:
    return path.name.lower().endswith((".gz", ".mgz"))


def _has_gzip_magic(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _check_sum(path: Path, longest: float) -> None:
    """Raise ``BadGzipFile`` on a wrong check sum: nibabel stops reading before gzip would compare it."""
    with gzip.open(path) as file:
        while file.read(1 << 22):
            if file.tell() > longest:
                raise BadInput(f"{path} holds far more than its header says; export it again.")


def _load(path: Path) -> nibabel.spatialimages.SpatialImage:
    import nibabel

    if _is_compressed(path) and not _has_gzip_magic(path):
        raise BadInput(f"{path} is not gzip-compressed; export it again, or rename it.")
    image = nibabel.load(path, mmap=False)  # voxels must not change with the file
    wanted = nibabel.MGHImage if is_mgh(path) else nibabel.Nifti1Pair  # all kinds of NIfTI derive from it
    if not isinstance(image, wanted):
        raise BadInput(f"{path} is {type(image).__name__}, not {_format(path)}; convert it to .nii.gz.")
    return image


def _geometry(
    image: nibabel.spatialimages.SpatialImage, path: Path
) -> tuple[np.ndarray, dict[str, Any], bool, list[str]]:
    """See :func:`~medzsad.scans.nifti_geometry.nifti_geometry`; FreeSurfer's unit is mm, and says it all."""
    header: Any = image.header
    if "goodRASFlag" not in header:
        return nifti_geometry(cast("nibabel.Nifti1Pair", image), path)
    affine = np.array(image.affine, dtype=np.float64)
    if not maps_to_a_volume(affine):
        raise BadInput(f"{path} has an affine that maps to no volume; correct its header.")
    with image.file_map["image"].get_prepare_fileobj(
        mode="rb"
    ) as file:  # nibabel sets the flag that it reads
        known = any(file.read(30)[28:])
    return affine, {}, known, [] if known else [UNKNOWN_SIZE]


def _shape(image: nibabel.spatialimages.SpatialImage, path: Path) -> tuple[int, ...]:
    """Return the shape without trailing axes of size 1, at least two axes long."""
    shape = list(image.shape)
    text = " x ".join(map(str, shape))
    if 0 in shape:
        raise BadInput(f"{path} holds no voxels: its shape is {text}; export it again.")
    while len(shape) > 3 and shape[-1] == 1:
        shape.pop()
    if not 2 <= len(shape) <= 4:
        raise BadInput(f"{path} has {len(shape)} axes ({text}); a scan has 3, or 4 with `volume`.")
    return tuple(shape)


def _voxels(
    image: nibabel.spatialimages.SpatialImage, shape: tuple[int, ...], volume: int | None, path: Path
) -> tuple[np.ndarray, str]:
    """Voxels as (X, Y, Z) or (X, Y, Z, 3) float32, and a note on the volume that was chosen."""
    dtype = image.get_data_dtype()
    if np.issubdtype(dtype, np.complexfloating):
        raise BadInput(f"{path} holds complex values; export their magnitude and try again.")
    note = ""
    source: Any = image.dataobj  # nibabel's proxy, whose own methods its types do not tell
    if len(shape) == 4:
        if volume is None:
            raise BadInput(
                f"{path} is 4D ({shape[3]} volumes); choose one with `volume` 0 to `volume` {shape[3] - 1}."
            )
        if not 0 <= volume < shape[3]:
            raise BadInput(f"{path} has volumes 0 to {shape[3] - 1}: `volume` {volume} does not exist.")
        source = source[:, :, :, volume]
        note = f"Volume {volume} of 0 to {shape[3] - 1} was read."
    elif volume not in (None, 0):
        raise BadInput(f"{path} holds one volume: `volume` {volume} does not exist; leave the option out.")
    in_file = source is image.dataobj and hasattr(source, "get_unscaled")
    if in_file and not dtype.fields and _is_exact_in_float32(image):
        # The same as asking nibabel for float32, which scales in float64: four times the memory. Only wide
        # types need that: 2^31 + 40 less 2^31 is 0 in float32.
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


def _is_exact_in_float32(image: nibabel.spatialimages.SpatialImage) -> bool:
    stored: Any = image.dataobj
    dtype = image.get_data_dtype()
    return dtype.itemsize <= 2 or dtype == np.float32 or (stored.slope, stored.inter) == (1.0, 0.0)
