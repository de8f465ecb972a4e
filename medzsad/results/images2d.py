"""Results of 2D inputs, as PNG."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medzsad.results.marks import save_png
from medzsad.scans.scan import Scan
from medzsad.scans.slices import CanonicalView, planes_to_slice, slice_image


def as_displayed(array: np.ndarray, scan: Scan) -> np.ndarray:
    """Return ``array`` (X, Y, 1) on a 2D scan's grid as (columns, rows, 1) of the displayed image."""
    view = CanonicalView.of(scan)
    (plane,) = planes_to_slice("auto", view)
    return slice_image(view.to_canonical(array), plane, 0).swapaxes(0, 1)[:, :, None]


def write_anomaly_png(anomaly_map: np.ndarray, path: Path, fingerprint: str = "") -> None:
    """Write a map (columns, rows, 1) in [0, 1] as a 16-bit grey PNG: 65535 is 1."""
    grey = np.round(anomaly_map[:, :, 0].T.astype(np.float64) * 65535).astype(np.uint16)
    save_png(grey, path, "anomaly map", fingerprint)


def write_mask_png(mask: np.ndarray, path: Path, fingerprint: str = "") -> None:
    """Write a mask (columns, rows, 1) as an 8-bit grey PNG: 255 is suspicious."""
    save_png(mask[:, :, 0].T.astype(np.uint8) * 255, path, "mask", fingerprint)
