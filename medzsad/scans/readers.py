"""Any scan file, DICOM folder or image in memory to a :class:`~medzsad.scans.scan.Scan`."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from medzsad.errors import BadInput
from medzsad.limits import limit, require_file
from medzsad.scans.affines import FARTHEST_MM, LARGEST_MM, SMALLEST_MM, voxel_sizes
from medzsad.scans.files import existing, is_volume, read_volume, why_unreadable
from medzsad.scans.images2d import is_image, read_image
from medzsad.scans.in_memory import scan_in_memory
from medzsad.scans.modality import LUMINANCE, hu_note, parse_modality
from medzsad.scans.scan import LARGEST_VALUE, Modality, Scan, check_name

SMALLEST_RANGE = 1e-30
MANY_SLICES = 100


def read_scan(
    path: Any,
    *,
    series: str | None = None,
    volume: int | None = None,
    modality: str | Modality | None = None,
    affine: Any = None,
    name: str | None = None,
) -> Scan:
    """Read a scan, whatever its format, or take one that is in memory already.

    >>> scan = read_scan("head_ct/")                                # doctest: +SKIP
    >>> scan.voxels.shape, scan.spacing, scan.modality, scan.notes  # doctest: +SKIP
    >>> scan = read_scan(voxels, affine=affine, modality="ct")      # doctest: +SKIP

    Args:
        path: a NIfTI, NRRD, MetaImage or MGZ file, a 2D image, a DICOM file, a folder with a DICOM series, or
            a DICOMDIR. Or an object: a NumPy array of real numbers: (X, Y, Z) or (X, Y, Z, 3), with
            ``affine``; or a 2D image, (rows, columns) or uint8 (rows, columns, 3), without. A MONAI
            ``MetaTensor`` (C, X, Y, Z) or (C, X, Y), see :func:`medzsad.scans.tensors.scan_of_tensor`; a
            nibabel image; a SimpleITK image, whose LPS becomes RAS+.
        series: DICOM SeriesInstanceUID, or a beginning or end of it that only one series has. Without it the
            series with the most slices is read, and the others are listed in the notes.
        volume: which volume of a 4D file, series or array, counted from 0.
        modality: overrides what the file says, or what is guessed from the values.
        affine: of a NumPy array, (4, 4), voxel index to world mm, RAS+. Without it voxels of 1 mm along
            right, anterior and superior are assumed, and a note says so.
        name: stem of the output files; by default the file's or folder's, and ``array``, ``tensor`` or
            ``image`` where there is none.

    Returns:
        The scan. Whatever was repaired, assumed or chosen on the way is said in its ``notes``. An array of
        float32 is not copied.

    Raises:
        BadInput: it is no scan, damaged, ambiguous (4D without ``volume``), or holds nothing to look at
            (NaN or infinite voxels, one constant value).
    """
    wanted = parse_modality(modality)
    if isinstance(path, str | os.PathLike):
        path = existing(path)
        if affine is not None:
            raise BadInput(f"{path} has an affine of its own: affine= belongs to NumPy arrays; leave it out.")
        scan = _read(path, series, volume)
    else:
        if series is not None:
            raise BadInput(
                f"series= chooses among DICOM files, not in a {type(path).__name__}; leave it out."
            )
        scan = scan_in_memory(path, affine=affine, volume=volume, modality=wanted)
    if name is not None:
        scan = replace(scan, name=check_name(name))
    _check_values(scan)
    scan = _with_modality(scan, wanted)
    return scan.with_notes(hu_note(scan.voxels) if scan.modality is Modality.CT else None)


def _read(path: Path, series: str | None, volume: int | None) -> Scan:
    if not path.is_dir() and not path.is_symlink():
        require_file(path)
    if series is not None and (is_volume(path) or is_image(path)):
        raise BadInput(f"{path} is not DICOM: `series` only chooses among DICOM series; leave it out.")
    fault = why_unreadable(path)
    if fault == "an empty file":
        raise BadInput(f"{path} is empty (0 bytes); copy or export it again.")
    if fault:
        raise BadInput(f"{path} is {fault}; fetch its content, or check its permissions.")
    if path.is_file() and is_volume(path):
        return read_volume(path, volume=volume)
    if path.is_file() and is_image(path):
        if volume not in (None, 0):
            raise BadInput(f"{path} is one image: `volume` {volume} does not exist; leave the option out.")
        return read_image(path)
    from medzsad.scans.dicom.series import read_dicom

    return read_dicom(path, series=series, volume=volume)


def _check_sane(scan: Scan) -> None:
    """Raise BadInput on voxel sizes, positions or values that cannot be, and slices too small to see.

    Such numbers are a damaged header's. They would end in infinities far from their cause.
    """
    source = scan.source
    if not np.isfinite(scan.affine).all():
        raise BadInput(f"{source} has a position or voxel size that is no finite number; correct its header.")
    if scan.has_geometry:
        with np.errstate(all="ignore"):
            sides = np.array(voxel_sizes(scan.affine))
        if not ((sides >= SMALLEST_MM) & (sides <= LARGEST_MM)).all():
            raise BadInput(
                f"{source} has voxels of {' x '.join(f'{side:.3g}' for side in sides)} mm, which cannot be; "
                "correct its header."
            )
        if np.abs(scan.affine[:3, 3]).max() > FARTHEST_MM:
            raise BadInput(
                f"{source} lies {np.abs(scan.affine[:3, 3]).max():.3g} mm from the origin; correct it."
            )
    small = limit("MEDZSAD_MIN_SIDE")
    shortest, middle, longest = sorted(scan.shape)
    if middle < small and longest >= MANY_SLICES:
        raise BadInput(
            f"{source} has {longest} slices of {shortest} x {middle} voxels, in which there is nothing to "
            "see; MEDZSAD_MIN_SIDE sets the smallest side that is computed."
        )
    if scan.voxels.size:
        low, high = float(scan.voxels.min()), float(scan.voxels.max())
        if np.isfinite([low, high]).all() and max(-low, high) > LARGEST_VALUE:
            raise BadInput(
                f"{source} has values up to {max(-low, high):.3g}, which no scan has; correct its scaling."
            )
        if low != high and high - low < SMALLEST_RANGE:
            raise BadInput(
                f"{source} is constant: its values differ by {high - low:.3g}; give the scan itself."
            )


def _check_values(scan: Scan) -> None:
    """Refuse voxels that no detector can look at."""
    voxels = scan.voxels
    _check_sane(scan)
    if voxels.size == 0:
        raise BadInput(f"{scan.source} holds no voxels: its shape is {' x '.join(map(str, scan.shape))}.")
    # A sum is finite only if every voxel is, and takes no memory; counting is for the message.
    with np.errstate(over="ignore", invalid="ignore"):
        finite = np.isfinite(voxels.sum(dtype=np.float64))
    if not finite:
        bad = sum(np.count_nonzero(~np.isfinite(voxels[:, :, k])) for k in range(voxels.shape[2]))
        if bad:
            raise BadInput(
                f"{scan.source} has {bad} NaN or infinite voxels ({bad / voxels.size:.2%}); replace them, "
                "for example with numpy.nan_to_num, and try again."
            )
    if voxels.min() == voxels.max():
        raise BadInput(
            f"{scan.source} is constant (every voxel is {voxels.flat[0]:g}); give the file of the scan "
            "itself."
        )


def _with_modality(scan: Scan, wanted: Modality | None) -> Scan:
    """Return the scan with the modality that was asked for, or a note on the one that was guessed."""
    if wanted is None:
        if scan.modality_source != "guessed" or scan.is_2d:
            return scan
        note = f"The modality is guessed from the values: {scan.modality} (`modality` sets it)."
        if any(earlier.startswith("The modality is guessed") for earlier in scan.notes):
            return scan  # a tensor that was read before
        return scan.with_notes(note)
    if scan.is_colour and wanted is Modality.CT:
        raise BadInput(f"{scan.source} is a colour image, which has no HU: `modality` ct cannot be.")
    if scan.is_colour and wanted not in (Modality.RGB, Modality.US):
        note = f"Its colours were turned to grey levels, because the modality was given as {wanted}."
        scan = replace(scan.with_notes(note), voxels=scan.voxels @ LUMINANCE)
    elif not scan.is_colour and wanted is Modality.RGB and not scan.is_2d:  # a grey photograph can be
        raise BadInput(f"{scan.source} is a grey volume: `modality` rgb cannot be; leave it out or say grey.")
    return replace(scan, modality=wanted, modality_source="given")
