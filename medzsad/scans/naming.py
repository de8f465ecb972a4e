"""What a scan is called: the name of its file or folder, as text that results can hold."""

from __future__ import annotations

import os
from pathlib import Path

from medzsad.errors import BadInput

# Endings that are no part of a scan's name.
SUFFIXES = (
    ".nii.gz", ".nii", ".hdr", ".hdr.gz", ".img", ".img.gz", ".nrrd", ".nhdr", ".mha", ".mhd", ".mgz", ".mgh",
    ".dcm", ".dicom", ".ima", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp",
)  # fmt: skip


def stem(path: Path) -> str:
    """Return the name of a path without its ending: dots may be part of a UID, or of a folder's name."""
    if path.name.upper() == "DICOMDIR" and not path.is_dir():
        path = path.parent
    name = path.name
    if not path.is_dir():
        suffix = next((end for end in SUFFIXES if name.lower().endswith(end)), "")
        name = name[: len(name) - len(suffix)]
    return as_text(name) or "scan"


def as_text(name: str) -> str:
    """Return a file name that can be written, printed and encoded."""
    decoded = os.fsencode(name).decode("utf-8", "replace")
    return "".join(letter if letter.isprintable() else "_" for letter in decoded)


def check_name(name: str) -> str:
    """Return ``name``, which becomes the stem of result files.

    Raises:
        BadInput: if it is empty, a path, or not printable.
    """
    if name in ("", ".", "..") or name != as_text(name) or set(name) & set("/\\"):
        raise BadInput(
            f"name={name!r} cannot be the name of result files; give a plain one such as 'case_7'."
        )
    return name
