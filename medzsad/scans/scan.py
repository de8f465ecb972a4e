"""A scan in memory: voxels, where they lie in the patient, how they were acquired, and what it is called."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medzsad.errors import BadInput
from medzsad.scans.names import as_text

if TYPE_CHECKING:
    from monai.data import MetaTensor

    from medzsad.scans.dicom.frames import Frame

FILE = "filename_or_obj"
"""In a ``MetaTensor``'s meta: the file it was read from."""
FACTS = "medzsad"
"""In a ``MetaTensor``'s meta: what a scan is besides voxels and affine, as JSON."""
_IN_FACTS = ("name", "modality_source", "is_2d", "has_geometry", "header", "notes", "details")
LARGEST_VALUE = 1e30  # no scan has a larger one


class Modality(StrEnum):
    """How the image came about, as far as intensities are concerned."""

    CT = "ct"
    MR = "mr"
    XRAY = "xray"
    US = "us"
    RGB = "rgb"
    GREY = "grey"


@dataclass(frozen=True, slots=True, repr=False)
class Scan:
    """One volume or one 2D image, as read.

    Attributes:
        voxels: float32 (X, Y, Z), or (X, Y, Z, 3) for colour (0 to 255, or as ``details["range"]``
            says). CT in HU; other modalities in stored units after the slope and intercept. A 2D image is
            (X, Y, 1) with X its columns and Y its rows.
        affine: float64 (4, 4), voxel index to world mm, RAS+ (NIfTI convention). For 2D images without
            geometry, pixels of 1 mm, X to the patient's left and Y to the feet (the radiological display).
        modality: see :class:`Modality`.
        modality_source: ``"dicom"``, ``"given"`` or ``"guessed"``.
        name: stem of the output files; from the file or folder name, never from patient data.
        source: the file or folder that was read; of a scan that was handed over in memory, what it was in
            angle brackets (``<array>``), which is no file's name.
        is_2d: whether results are written as images instead of NIfTI volumes.
        has_geometry: whether sizes in mm are known: False for PNG, JPEG and TIFF, and for files without a
            usable voxel size.
        header: for NIfTI, what the outputs take over: ``nifti_version``, ``xyzt_units``, ``unit_scale`` (mm
            per spatial unit of the file), both matrices' fields and their codes.
        notes: sentences that the user should read: what was repaired, resampled, assumed or chosen.
        details: JSON-serialisable facts for the report (no patient data), such as the DICOM series UID.
        frames: for DICOM, the images that the voxels are from, in their order along the stack. They know
            their files, and are for DICOM results alone: nothing of them belongs in a report.
    """

    voxels: np.ndarray
    affine: np.ndarray
    modality: Modality
    modality_source: str
    name: str
    source: Path
    is_2d: bool = False
    has_geometry: bool = True
    header: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)
    frames: tuple[Frame, ...] = field(default=(), repr=False)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along X, Y and Z."""
        x, y, z = self.voxels.shape[:3]
        return x, y, z

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance between voxel centres along X, Y and Z, in mm."""
        x, y, z = (float(s) for s in np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0)))
        return x, y, z

    @property
    def voxel_volume(self) -> float:
        """Volume of a voxel in mm^3."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    @property
    def is_colour(self) -> bool:
        """Whether the last axis of ``voxels`` holds red, green and blue."""
        return self.voxels.ndim == 4

    def with_notes(self, *notes: str | None) -> Scan:
        """Return the scan with further notes; None is none."""
        return replace(self, notes=(*self.notes, *(note for note in notes if note is not None)))

    def __repr__(self) -> str:
        voxels = " x ".join(map(str, self.shape))
        spacing = " x ".join(f"{mm:.4g}" for mm in self.spacing)
        where = f"{spacing} mm" if self.has_geometry else "mm not known"
        return f"Scan({self.name!r}, {self.modality.value}, {voxels} voxels, {where})"

    def as_metatensor(self) -> MetaTensor:
        """Return the scan as a channel-first MONAI ``MetaTensor``, float32 (C, X, Y, Z), with its affine
        (float64, RAS+, mm). :func:`medzsad.read_scan` makes the same scan of it again, but for its DICOM
        images.
        """
        import torch
        from monai.data import MetaTensor

        channels = np.moveaxis(self.voxels, -1, 0) if self.is_colour else self.voxels[None]
        return MetaTensor(
            torch.from_numpy(np.ascontiguousarray(channels)),
            affine=torch.from_numpy(self.affine),
            meta=meta_of(self),
        )


def meta_of(scan: Scan) -> dict[str, Any]:
    """Return the meta of a scan's ``MetaTensor``: its file, its space and :data:`FACTS`; no affine."""
    facts = {field: getattr(scan, field) for field in _IN_FACTS} | {"modality": str(scan.modality)}
    # Sums over voxels depend on their order in memory, in the last digit.
    strides = np.abs(scan.voxels.strides)
    facts["order"] = sorted(range(scan.voxels.ndim), key=lambda axis: -strides[axis])
    return {
        FILE: str(scan.source),
        "space": "RAS",
        FACTS: json.dumps(facts, default=lambda value: value.item()),
    }


def check_name(name: str) -> str:
    """Return ``name``, which becomes the stem of result files.

    Raises:
        BadInput: if it is empty, a path, or not printable.
    """
    if name in ("", ".", "..") or name != as_text(name) or set(name) & set("/\\"):
        raise BadInput(
            f"name={name!r} cannot be the name of result files; give a plain one such as 'case_7'."
        )
    return name
