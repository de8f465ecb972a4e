"""Layouts by name, and the search for the one that a folder has."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from medzsad.datasets import class_folders, label_folders, listed, paired_folders, raw_defects, volumes
from medzsad.datasets.reading import Found, Request

Reader = Callable[[Path, Request], Found | None]

READERS: dict[str, Reader] = {
    "meta.json": listed.read_meta,
    "mvtec": class_folders.read_mvtec,
    "images-masks": paired_folders.read_images_masks,
    "yes-no": label_folders.read_yes_no,
    "visa": listed.read_visa,
    "ksdd": raw_defects.read_ksdd,
    "dagm": raw_defects.read_dagm,
    "dagm-balanced": raw_defects.read_dagm_balanced,
    "headct": listed.read_headct,
    "covid": label_folders.read_covid,
    "covid-all": label_folders.read_covid_all,
    "isic": paired_folders.reader_of(paired_folders.ISIC),
    "tn3k": paired_folders.reader_of(paired_folders.TN3K),
    "clinicdb": paired_folders.reader_of(paired_folders.CLINICDB),
    "colondb": paired_folders.read_colondb,
    "bmad": class_folders.read_bmad,
    "datalist": volumes.read_datalist,
    "image-label-folders": volumes.read_pairs,
    "cases": volumes.read_cases,
}
"""Each returns None where its layout does not fit."""


def find_layout(
    bases: Sequence[Path], layouts: Iterable[Sequence[str]], request: Request
) -> tuple[str, Path, Found] | None:
    """Return the first layout that fits.

    Args:
        bases: the places, the likeliest first.
        layouts: groups of layouts. A group is tried at every place before the next group: a set's own
            layout in an unlikely folder counts more than a generic one in a likely folder (the lung masks of
            COVID-19 look like ``images/`` and ``masks/``).
        request: what is wanted.

    Returns:
        Its name, the place and what was found there; None if nothing fits anywhere.

    Raises:
        BadInput: a layout fits, but a file that it needs is broken.
    """
    for group in layouts:
        for base in bases:
            for name in group:
                if base.is_file() and name != "datalist":
                    continue
                found = READERS[name](base, request)
                if found is not None:
                    return name, base, found
    return None
