"""The names that bundles of earlier versions use; new ones are in :mod:`medzsad.monai`."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from monai.transforms import MapTransform

from medzsad.monai.inferer import AnomalyInferer as ScanInferer
from medzsad.monai.inferer import FiguresHandler, fixed_threshold, scores_and_labels
from medzsad.monai.reader import labelled_scans_at, scans_at
from medzsad.monai.transforms import LoadLabeld, SavePredictiond
from medzsad.scans.readers import read_scan

__all__ = [
    "FiguresHandler",
    "LoadLabeld",
    "LoadScand",
    "SavePredictiond",
    "ScanInferer",
    "fixed_threshold",
    "labelled_scans_at",
    "scans_at",
    "scores_and_labels",
]


class LoadScand(MapTransform):
    """Reads scans: paths to ``MetaTensor`` (C, X, Y, Z). In its place, use ``LoadImaged`` with our reader.

    Args:
        keys: of the paths.
        allow_missing_keys: leave items alone that lack a key.
        options: of :func:`medzsad.read_scan`.
    """

    def __init__(self, keys: Any = "image", *, allow_missing_keys: bool = False, **options: Any) -> None:
        super().__init__(keys, allow_missing_keys)
        self.options = options

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return ``data`` with its paths read."""
        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = read_scan(item[key], name=item.get("name"), **self.options).as_metatensor()
        return item
