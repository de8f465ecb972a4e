"""Scans for MONAI: data lists for its ``Dataset``, and our reading of scans for its ``LoadImage``."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.config import PathLike
from monai.data import ImageReader
from monai.utils import MetaKeys, ensure_tuple

from medzsad.batch import unique_names
from medzsad.datasets.opening import open_dataset
from medzsad.errors import BadInput
from medzsad.scans.affines import display_affine
from medzsad.scans.files import is_volume
from medzsad.scans.find import locate_scans
from medzsad.scans.images2d import is_image
from medzsad.scans.readers import read_scan
from medzsad.scans.scan import Scan, meta_of


def scans_at(place: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[dict[str, str]]:
    """List the scans of a file, a folder, or several of these: ``{"image": path, "name": name}`` of each.

    Names are those of the results of ``medzsad predict``; no two are the same.

    Raises:
        BadInput: there is no such place, no scan in it, or a DICOM folder that holds the scans of several
            people or studies, of which a path cannot name one.
    """
    places = [place] if isinstance(place, str | os.PathLike) else list(place)
    found = list(dict.fromkeys(scan for one in places for scan in locate_scans(Path(one))[0]))
    several = next((scan.path for scan in found if scan.series), None)
    if several is not None:
        raise BadInput(
            f"{several} holds DICOM images of several people or studies; give each a folder of its own."
        )
    paths = [scan.path for scan in found]
    return [{"image": str(p), "name": n} for p, n in zip(paths, unique_names(paths), strict=True)]


def labelled_scans_at(folder: str | os.PathLike[str]) -> list[dict[str, str]]:
    """List volumes with label volumes, in a layout that ``medzsad datasets info volumes`` shows.

    Returns:
        ``image``, ``label`` and ``name`` of each.

    Raises:
        BadInput: if the folder has no such layout.
    """
    samples = open_dataset("volumes", Path(folder)).volumes
    names = unique_names([sample.image for sample in samples])
    return [
        {"image": str(sample.image), "label": str(sample.label), "name": name}
        for sample, name in zip(samples, names, strict=True)
    ]


class MedzsadReader(ImageReader):
    """Reads NIfTI, DICOM and 2D images with :func:`medzsad.read_scan`: strictly, and saying what was done.

    ``LoadImage(reader=MedzsadReader)`` or ``LoadImage(reader="medzsad.monai.MedzsadReader", modality="ct")``.
    Axes and affines are those of MONAI's readers: (X, Y, Z), of DICOM (columns, rows, slices), to RAS+ mm; a
    PNG, JPEG or TIFF is (columns, rows) with the identity. Colours are the last axis. A DICOM series with
    missing slices, tilt or mixed spacing is resampled onto a true grid, of several series in a folder one is
    taken, and the meta says so; what cannot be trusted is refused. Unlike other readers that a user names, it
    is final: where it refuses a file, ``LoadImage`` does not fall back on another.

    Args:
        modality, series, volume: for :func:`medzsad.read_scan`.
        kwargs: what ``LoadImage`` hands to its other readers; nothing is done with it.
    """

    def __init__(
        self,
        modality: str | None = None,
        series: str | None = None,
        volume: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        self.options: dict[str, Any] = {"modality": modality, "series": series, "volume": volume}

    def verify_suffix(self, filename: Sequence[PathLike] | PathLike) -> bool:
        """Whether these are NIfTI files, 2D images, DICOM files or folders."""
        from medzsad.scans.dicom.files import is_dicom

        paths = [Path(name) for name in ensure_tuple(filename)]
        return all(path.is_dir() or is_volume(path) or is_image(path) or is_dicom(path) for path in paths)

    def read(self, data: Sequence[PathLike] | PathLike, **kwargs: Any) -> tuple[Path, ...]:
        """Return the paths; reading is :meth:`get_data`'s, for of errors here ``LoadImage`` makes nothing.

        Args:
            data: a file or folder, or several, which become channels.
            kwargs: as of the class.
        """
        return tuple(Path(name) for name in ensure_tuple(data))

    def get_data(self, img: tuple[Path, ...]) -> tuple[np.ndarray, dict[str, Any]]:
        """Read the scans.

        Args:
            img: what :meth:`read` returned.

        Returns:
            float32 (X, Y, Z[, 3]), or (columns, rows[, 3]); of several files (N, X, Y, Z). And the meta:
            affine, ``spatial_shape``, ``original_channel_dim``, and what :func:`medzsad.predict` asks for.

        Raises:
            BadInput: see :func:`medzsad.read_scan`; or several files of different grids, or in colour.
        """
        scans = [read_scan(path, **self.options) for path in img]
        first = scans[0]
        for other in scans[1:]:
            same = first.shape == other.shape and np.allclose(first.affine, other.affine, atol=1e-3)
            if not same or first.is_colour or other.is_colour:
                raise BadInput(
                    f"{other.source} cannot be a channel beside {first.source}: grids or colours differ."
                )
        voxels = [_axes_of_monai(scan) for scan in scans]
        # The inverse of what a 2D tensor is taken for: the identity leads to columns and rows.
        affine = np.linalg.inv(display_affine()) @ first.affine if first.is_2d else first.affine
        spatial = first.shape[: 2 if first.is_2d else 3]
        channel = 0 if len(scans) > 1 else -1 if first.is_colour else float("nan")
        meta = {
            **meta_of(first),
            MetaKeys.AFFINE: affine.copy(),
            MetaKeys.ORIGINAL_AFFINE: affine.copy(),
            MetaKeys.SPATIAL_SHAPE: np.asarray(spatial),
            MetaKeys.ORIGINAL_CHANNEL_DIM: channel,
        }
        return np.stack(voxels) if len(voxels) > 1 else voxels[0], meta


def _axes_of_monai(scan: Scan) -> np.ndarray:
    return scan.voxels[:, :, 0] if scan.is_2d else scan.voxels
