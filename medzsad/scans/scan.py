"""A scan in memory: voxels, where they lie in the patient, and how they were acquired."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from monai.data import MetaTensor

    from medzsad.scans.dicom_frames import Frame


class Modality(StrEnum):
    """How the image came about, as far as intensities are concerned."""

    CT = "ct"
    MR = "mr"
    XRAY = "xray"
    US = "us"
    RGB = "rgb"
    GREY = "grey"


@dataclass(frozen=True, slots=True)
class Scan:
    """One volume or one 2D image, as read.

    Attributes:
        voxels: float32 (X, Y, Z), or (X, Y, Z, 3) for colour (0 to 255). CT in HU; other modalities in stored
            units after the slope and intercept. A 2D image is (X, Y, 1) with X its columns and Y its rows.
        affine: float64 (4, 4), voxel index to world mm, RAS+ (NIfTI convention). For 2D images without
            geometry, pixels of 1 mm, X to the patient's left and Y to the feet (the radiological display).
        modality: see :class:`Modality`.
        modality_source: ``"dicom"``, ``"given"`` or ``"guessed"``.
        name: stem of the output files; from the file or folder name, never from patient data.
        source: the file or folder that was read.
        is_2d: whether results are written as images instead of NIfTI volumes.
        has_geometry: whether the affine is known (False for PNG, JPEG and TIFF: sizes in mm mean nothing).
        header: for NIfTI, what the outputs take over: ``xyzt_units``, ``qform_code``, ``sform_code`` and
            ``unit_scale`` (mm per spatial unit of the file).
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
        return self.voxels.shape[:3]

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance between voxel centres along X, Y and Z, in mm."""
        return tuple(float(s) for s in np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0)))

    @property
    def voxel_volume(self) -> float:
        """Volume of a voxel in mm^3."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    @property
    def is_colour(self) -> bool:
        """Whether the last axis of ``voxels`` holds red, green and blue."""
        return self.voxels.ndim == 4

    def as_metatensor(self) -> MetaTensor:
        """The scan as a channel-first MONAI ``MetaTensor`` (C, X, Y, Z) with its affine (RAS+, mm)."""
        import torch
        from monai.data import MetaTensor

        channels = np.moveaxis(self.voxels, -1, 0) if self.is_colour else self.voxels[None]
        return MetaTensor(
            torch.from_numpy(np.ascontiguousarray(channels)),
            affine=torch.from_numpy(self.affine),
            meta={"filename_or_obj": str(self.source), "space": "RAS"},
        )
