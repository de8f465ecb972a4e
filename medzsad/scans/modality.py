"""How an image came about: from DICOM, from the user's word, or guessed from the values; and if in colour.

Whether a scan is in colour is decided by what it is (its modality and photometric interpretation), never by a
difference between channels alone: several CT windows differ, too, and a head CT that went through a network
for endoscopy gave a wrong answer that looked right.
"""

from __future__ import annotations

import numpy as np

from medzsad.errors import BadInput
from medzsad.scans.scan import Modality, Scan

OF_DICOM = {
    "CT": Modality.CT,
    "MR": Modality.MR,
    "US": Modality.US,
    "IVUS": Modality.US,
    "BDUS": Modality.US,
    **dict.fromkeys(("CR", "DX", "DR", "MG", "XA", "RF", "PX", "IO", "RG"), Modality.XRAY),
}
LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)  # Rec. 601, as Pillow's "L"
GREY, COLOUR = "grey", "colour"
NEED_HU = "CT windows need HU, so the result may be wrong."


def parse_modality(modality: str | Modality | None) -> Modality | None:
    """Return the modality that a user's word means.

    Raises:
        BadInput: no such modality.
    """
    if modality is None:
        return None
    try:
        return Modality(str(modality).strip().lower())
    except ValueError as error:
        raise BadInput(f"`modality` {modality} is not known; choose one of {', '.join(Modality)}.") from error


def hu_note(voxels: np.ndarray) -> str | None:
    """Return what to say of a CT whose values do not look like HU, such as one stored with +1024.

    None if they do.
    Air is near -1000 HU, soft tissue near 40, and padding below -1100. A CT that never falls below 0, or has
    no air and much near 1040, is taken for shifted.

    Args:
        voxels: (X, Y, Z) of a CT.
    """
    lowest = float(voxels.min())
    air = shifted = 0
    for k in range(voxels.shape[2]):
        plane = voxels[:, :, k]
        air += int(np.count_nonzero((plane >= -1100) & (plane < -200)))
        shifted += int(np.count_nonzero((plane >= 850) & (plane <= 1250)))
    if lowest >= 0:
        return f"The CT has no negative values: they may not be HU. {NEED_HU}"
    if air == 0 and shifted >= 0.03 * voxels.size:
        return (
            "The CT has no air but much that would be dense bone: its values may not be HU (stored with "
            f"+1024?). {NEED_HU}"
        )
    return None


def guess_modality(voxels: np.ndarray) -> Modality:
    """RGB for colour; CT or MR from the values alone.

    CT has air near -1000 and soft tissue near 0, in fixed units; anything else is taken for MR. Padding below
    -1100 HU counts as neither.

    Args:
        voxels: (X, Y, Z) or (X, Y, Z, 3).
    """
    if voxels.ndim == 4:
        return Modality.RGB
    air = tissue = 0
    for k in range(voxels.shape[2]):
        plane = voxels[:, :, k]
        air += int(np.count_nonzero((plane >= -1100) & (plane <= -850)))
        tissue += int(np.count_nonzero((plane >= -150) & (plane <= 250)))
    looks_ct = air >= 0.005 * voxels.size and tissue >= 0.03 * voxels.size and voxels.max() >= 100
    return Modality.CT if looks_ct else Modality.MR


def kind_of(scan: Scan) -> str:
    """Return ``"colour"`` for photographs and videos in colour, ``"grey"`` for all radiology."""
    return COLOUR if scan.is_colour and scan.modality is Modality.RGB else GREY


def is_radiology(modality: str | None) -> bool:
    """Return whether what a data set says of its images means that colours in them are none of their own.

    Args:
        modality: a name of :class:`Modality`; None where nothing is said, as of data of one's own.
    """
    return modality is not None and Modality(modality) is not Modality.RGB
