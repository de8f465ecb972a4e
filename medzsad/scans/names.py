"""What scans, and their results, are called: from the names of files and folders. Imports nothing heavy."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

# Endings that are no part of a scan's name.
FILE_ENDINGS = (
    ".nii.gz", ".nii", ".hdr", ".hdr.gz", ".img", ".img.gz", ".nrrd", ".nhdr", ".mha", ".mhd", ".mgz", ".mgh",
    ".dcm", ".dicom", ".ima", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp",
)  # fmt: skip


def stem(path: Path) -> str:
    """Return the name of a path without its ending: dots may be part of a UID, or of a folder's name."""
    if path.name.upper() == "DICOMDIR" and not path.is_dir():
        path = path.parent
    name = path.name
    if not path.is_dir():
        suffix = next((end for end in FILE_ENDINGS if name.lower().endswith(end)), "")
        name = name[: len(name) - len(suffix)]
    return as_text(name) or "scan"


def as_text(name: str) -> str:
    """Return a file name that can be written, printed and encoded."""
    decoded = os.fsencode(name).decode("utf-8", "replace")
    return "".join(letter if letter.isprintable() else "_" for letter in decoded)


def unique_names(paths: list[Path]) -> list[str]:
    """Output names: the inputs' own, and where these clash, folder names in front or numbers behind.

    Names are the paths' own, not those of what links lead to. Control characters, and bytes of a file name
    that are no UTF-8, are replaced: results hold the name as text.
    """
    places = [Path(os.path.abspath(path)) for path in paths]
    names = [stem(place) for place in places]
    for depth in range(1, 4):
        # Folded: some file systems do not tell small letters from capitals.
        counts = Counter(name.casefold() for name in names)
        for i, place in enumerate(places):
            if counts[names[i].casefold()] > 1 and len(place.parts) > depth + 1:
                names[i] = f"{as_text(place.parts[-1 - depth])}_{names[i]}"
    given = {name.casefold() for name in names}
    taken: set[str] = set()
    for i, name in enumerate(names):
        number = 1
        while names[i].casefold() in (taken if number == 1 else taken | given):
            number += 1
            names[i] = f"{name}_{number}"
        taken.add(names[i].casefold())
    return names
