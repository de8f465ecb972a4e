"""Data lists for MONAI's ``Dataset``: scans, and scans with labels."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from medzsad.cohort import unique_names
from medzsad.datasets.opening import open_dataset
from medzsad.scans.readers import find_scans


def scans_at(place: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[dict[str, str]]:
    """List the scans of a file, a folder, or several of these: ``{"image": path, "name": name}`` of each.

    Names are those of the results of ``medzsad predict``; no two are the same.

    Raises:
        BadInput: there is no such place, or no scan in it.
    """
    places = [place] if isinstance(place, str | os.PathLike) else list(place)
    paths = list(dict.fromkeys(path for one in places for path in find_scans(Path(one))))
    return [{"image": str(p), "name": n} for p, n in zip(paths, unique_names(paths), strict=True)]


def labelled_scans_at(folder: str | os.PathLike[str]) -> list[dict[str, str]]:
    """List volumes with label volumes, in a layout that ``medzsad datasets info volumes`` shows.

    Returns:
        ``image``, ``label`` and ``name`` of each.

    Raises:
        BadInput: if the folder has no such layout.
    """
    samples = open_dataset("volumes", folder)
    names = unique_names([sample.image for sample in samples])
    return [
        {"image": str(sample.image), "label": str(sample.label), "name": name}
        for sample, name in zip(samples, names, strict=True)
    ]
