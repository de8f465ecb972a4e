"""The CT window that is used when the user names none."""

from __future__ import annotations

import numpy as np

from medzsad.scans.foreground import foreground_mask
from medzsad.scans.scan import Scan

# DICOM's BodyPartExamined (PS3.16, context group 4) by the window its readings start with.
WINDOW_OF_BODY_PART = {
    "HEAD": "brain", "BRAIN": "brain", "SKULL": "brain", "HEADNECK": "brain",
    "CHEST": "lung", "LUNG": "lung", "THORAX": "lung",
    "HEART": "mediastinum", "MEDIASTINUM": "mediastinum",
    "ABDOMEN": "abdomen", "PELVIS": "abdomen", "ABDOMENPELVIS": "abdomen", "LIVER": "abdomen",
    "KIDNEY": "abdomen", "PANCREAS": "abdomen", "COLON": "abdomen", "NECK": "mediastinum",
    "SPINE": "bone", "CSPINE": "bone", "TSPINE": "bone", "LSPINE": "bone", "EXTREMITY": "bone",
    "KNEE": "bone", "HIP": "bone", "SHOULDER": "bone", "HAND": "bone", "WRIST": "bone", "FOOT": "bone",
    "ANKLE": "bone",
}  # fmt: skip
LUNG_SHARE = 0.2
BONE_SHARE = 0.1
HEAD_LITRES = 6.0


def default_window(scan: Scan, foreground: np.ndarray | None = None) -> tuple[str, str]:
    """Return a window for a CT, and why.

    The DICOM body part decides; without one, the contents do: lung where a fifth of the body is aerated,
    brain where a tenth is bone in a body no larger than a head, and otherwise abdomen.

    Args:
        scan: a CT.
        foreground: bool (X, Y, Z), its body, if it was computed already.

    Returns:
        The window's name and a phrase that says what decided.
    """
    part = str(scan.details.get("body_part") or "")
    if part in WINDOW_OF_BODY_PART:
        return WINDOW_OF_BODY_PART[part], f"for DICOM body part {part}"
    body = foreground_mask(scan) if foreground is None else foreground
    size = int(np.count_nonzero(body))
    lung = bone = 0
    for k in range(body.shape[2]):
        values = scan.voxels[:, :, k][body[:, :, k]]
        lung += int(np.count_nonzero((values > -980) & (values < -500)))
        bone += int(np.count_nonzero(values > 200))
    if lung > LUNG_SHARE * size:
        return "lung", "chosen from the values"
    if bone > BONE_SHARE * size and size * scan.voxel_volume / 1e6 < HEAD_LITRES:
        return "brain", "chosen from the values"
    return "abdomen", "chosen from the values"
