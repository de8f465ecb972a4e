"""Voxel values to the three channels in [0, 1] that detectors read: windows, stored levels, percentiles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from medzsad.errors import BadInput
from medzsad.scans.foreground import foreground_mask, padding_value
from medzsad.scans.modality import COLOUR, LUMINANCE, kind_of
from medzsad.scans.scan import LARGEST_VALUE, Modality, Scan

# Centre and width in HU, as radiology reads them.
WINDOWS: dict[str, tuple[float, float]] = {
    "brain": (40.0, 80.0),
    "subdural": (75.0, 215.0),
    "stroke": (40.0, 40.0),
    "bone": (600.0, 2800.0),
    "lung": (-600.0, 1500.0),
    "mediastinum": (50.0, 350.0),
    "abdomen": (40.0, 400.0),
    "liver": (60.0, 160.0),
}
PERCENTILES = (0.5, 99.5)
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


@dataclass(frozen=True)
class IntensityScaling:
    """A linear scaling per channel, clipped to [0, 1]; cheap enough to apply slab by slab.

    Attributes:
        low: value that becomes 0, for each of the three channels.
        high: value that becomes 1.
        colour: whether the voxels it takes hold red, green and blue in their last axis.
        padding: voxels of exactly this value are background, and become 0 whatever the range.
        description: what it does, for people.
        settings: what it does, JSON-serialisable.
    """

    low: tuple[float, float, float]
    high: tuple[float, float, float]
    colour: bool
    padding: float | None
    description: str
    settings: dict[str, Any]

    def __call__(self, voxels: np.ndarray) -> np.ndarray:
        """Scale voxels of any shape.

        Args:
            voxels: (...), or (..., 3) if :attr:`colour`, in the scan's own units.

        Returns:
            float32 (3, ...) in [0, 1], contiguous. Grey values fill all three channels alike, unless they are
            seen through several windows.
        """
        shape = voxels.shape[:-1] if self.colour else voxels.shape
        out = np.empty((3, *shape), dtype=np.float32)
        for channel in range(3):
            earlier = next((c for c in range(channel) if self._same(c, channel)), None)
            if earlier is not None:
                out[channel] = out[earlier]
                continue
            low, high = self.low[channel], self.high[channel]
            np.subtract(voxels[..., channel] if self.colour else voxels, np.float32(low), out=out[channel])
            out[channel] *= np.float32(1.0 / (high - low))
            np.clip(out[channel], 0.0, 1.0, out=out[channel])
            if self.padding is not None:
                out[channel][voxels == np.float32(self.padding)] = 0.0
        return out

    def _same(self, one: int, other: int) -> bool:
        return not self.colour and self.low[one] == self.low[other] and self.high[one] == self.high[other]


def intensity_scaling(
    scan: Scan, window: str | None = None, foreground: np.ndarray | None = None
) -> IntensityScaling:
    """Return the scaling that suits a scan.

    CT goes through windows. Images that hold 8-bit grey levels or colours made for display keep them.
    Everything else (MR, radiographs, 16-bit images) is scaled by percentiles of its foreground, so background
    counts for nothing; background of one constant value becomes black.

    Args:
        scan: the scan; its values are read, not changed.
        window: a name of :data:`WINDOWS` (CT only), ``"CENTRE,WIDTH"`` in the scan's units, or two or three
            of these joined with ``+`` to fill the three channels; of two, the second fills the third channel
            too. None chooses.
        foreground: bool (X, Y, Z), the scan's :func:`foreground_mask` if it was computed already.

    Raises:
        BadInput: a window that is not known, has no width, or does not fit the modality.
    """
    if window is not None:
        return _windowed(scan, window, parse_windows(window, scan), "given")
    if scan.modality is Modality.CT:
        name, reason = default_window(scan, foreground)
        return _windowed(scan, name, [WINDOWS[name]], reason)
    stored = scan.details.get("range")
    if stored is not None and (scan.is_colour or scan.modality is not Modality.MR):
        low, high = map(float, stored)
        return _scaling(scan, [(low, high)], f"{_name(scan)}, levels {low:g} to {high:g} as stored", "stored")
    if scan.is_colour:
        return _scaling(scan, [(0.0, 255.0)], f"{_name(scan)}, levels 0 to 255 as stored", "stored")
    return _by_percentiles(scan, foreground_mask(scan) if foreground is None else foreground)


def parse_windows(window: str, scan: Scan | None = None) -> list[tuple[float, float]]:
    """Centre and width of each window that ``--window`` names; ``scan`` says whether names mean anything.

    Raises:
        BadInput: see :func:`intensity_scaling`.
    """
    if scan is not None and scan.is_colour:
        raise BadInput(f"{scan.source} is a colour image: it takes no `window`; leave it out.")
    parts = [part.strip().lower() for part in window.split("+")]
    if len(parts) > 3:
        raise BadInput(f"`window` {window} names {len(parts)} windows; three channels take at most three.")
    windows = []
    for part in parts:
        if part in WINDOWS:
            if scan is not None and scan.modality is not Modality.CT:
                raise BadInput(
                    f"`window` {part} is in HU and {scan.source} is not CT ({scan.modality}); give "
                    "CENTRE,WIDTH in the scan's own units, or `modality` ct if it is CT."
                )
            windows.append(WINDOWS[part])
            continue
        try:
            centre, width = (float(number) for number in part.split(","))
        except ValueError as error:
            raise BadInput(
                f"`window` {part} is not known; use {', '.join(WINDOWS)}, or CENTRE,WIDTH such as 40,80."
            ) from error
        if not (np.isfinite(centre) and np.isfinite(width) and width > 0):
            raise BadInput(f"`window` {part} has no width; give CENTRE,WIDTH such as 40,80.")
        if abs(centre) > LARGEST_VALUE or not 1 / LARGEST_VALUE < width < LARGEST_VALUE:
            raise BadInput(f"`window` {part} is beyond what a scan holds; give CENTRE,WIDTH such as 40,80.")
        windows.append((centre, width))
    return windows


def _windowed(scan: Scan, text: str, windows: list[tuple[float, float]], reason: str) -> IntensityScaling:
    ranges = [(centre - width / 2, centre + width / 2) for centre, width in windows]
    label = text.replace(" ", "").lower()
    many = "windows" if len(windows) > 1 else "window"
    spans = "; ".join(f"{low:g} to {high:g}" for low, high in ranges)
    unit = " HU" if scan.modality is Modality.CT else ""
    because = "" if reason == "given" else f", {reason}"
    description = f"{_name(scan)}, {many} {label} ({spans}{unit}{because})"
    return _scaling(scan, ranges, description, "window", window=label)


def _by_percentiles(scan: Scan, foreground: np.ndarray) -> IntensityScaling:
    values = scan.voxels[foreground]
    if values.size == 0:
        values = scan.voxels.ravel()
    low, high = (float(v) for v in np.percentile(values, PERCENTILES, overwrite_input=True))
    if not high > low:  # nearly constant: both percentiles fall on one value; the extremes differ
        low, high = float(scan.voxels.min()), float(scan.voxels.max())
    span = f"{PERCENTILES[0]:g} to {PERCENTILES[1]:g} of the foreground ({low:.6g} to {high:.6g})"
    return _scaling(scan, [(low, high)], f"{_name(scan)}, percentiles {span}", "percentiles")


def _scaling(
    scan: Scan, ranges: list[tuple[float, float]], description: str, method: str, **settings: str
) -> IntensityScaling:
    first, second, third = (ranges[min(channel, len(ranges) - 1)] for channel in range(3))
    return IntensityScaling(
        low=(first[0], second[0], third[0]),
        high=(first[1], second[1], third[1]),
        colour=scan.is_colour,
        padding=None if method == "stored" or scan.modality is Modality.CT else padding_value(scan),
        description=description,
        settings={
            "modality": str(scan.modality),
            "method": method,
            "ranges": [list(span) for span in ranges],
            **settings,
        },
    )


def _name(scan: Scan) -> str:
    names = {
        Modality.XRAY: "X-ray",
        Modality.US: "ultrasound",
        Modality.GREY: "grey image",
        Modality.RGB: "colour image" if scan.is_colour else "photograph without colours",
    }
    return names.get(scan.modality, scan.modality.upper())


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


def as_shown(scan: Scan, scaling: IntensityScaling) -> Callable[[np.ndarray], np.ndarray]:
    """Return the scaling whose three channels are equal unless the scan is one in colour.

    Of several windows the first is kept; colours in radiology (flow in an ultrasound) become grey.

    Args:
        scan: decides.
        scaling: of its voxels, (...[, 3]) to float32 (3, ...) in [0, 1].
    """
    if kind_of(scan) == COLOUR:
        return scaling
    if not scan.is_colour:
        return replace(scaling, low=(scaling.low[0],) * 3, high=(scaling.high[0],) * 3)

    def grey(voxels: np.ndarray) -> np.ndarray:
        level = np.tensordot(LUMINANCE, scaling(voxels), axes=1)
        return np.ascontiguousarray(np.broadcast_to(level, (3, *level.shape)))

    return grey


def window_note(window: str | None) -> str | None:
    """Return what to say where only the first of several windows is shown; None of a single one."""
    if window is None or "+" not in window:
        return None
    return f"This detector reads one window at a time: only the first of {window} counts."
