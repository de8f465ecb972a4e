"""Data lists for MONAI's ``Dataset``: scans, and scans with labels."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from medzsad.batch import unique_names
from medzsad.datasets.opening import open_dataset
from medzsad.errors import BadInput
from medzsad.scans.readers import locate_scans


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
