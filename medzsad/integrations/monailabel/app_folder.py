"""The app folder that MONAI Label is started with: a few lines that lead to the package."""

from __future__ import annotations

from pathlib import Path

from medzsad.errors import BadInput, OutputNotWritable
from medzsad.storage.atomic import replacing

MARK = "from medzsad.integrations.monailabel.app import MedzsadApp"
"""The line of ``main.py`` that an app folder of ours is known by."""

FILES = {
    "main.py": f'''"""MONAI Label app of medzsad; the class that MONAI Label looks for is the package's."""

{MARK}

__all__ = ["MedzsadApp"]
''',
    "requirements.txt": "medzsad[monailabel]\n",
    "README.md": Path(__file__).with_name("app_readme.md").read_text(encoding="utf-8"),
}


def write_app_folder(folder: Path) -> list[Path]:
    """Write the app folder, or bring one of ours up to date; what was trained in it stays.

    Returns:
        The files written.

    Raises:
        BadInput: if the folder holds something else.
        OutputNotWritable: if it cannot be written.
    """
    if folder.is_file():
        raise BadInput(f"{folder} is a file; give a new folder for the app.")
    if folder.is_dir() and any(folder.iterdir()) and not is_app_folder(folder):
        raise BadInput(f"{folder} holds other files and no medzsad app; give a new or empty folder.")
    written = []
    try:
        for name, text in FILES.items():
            with replacing(folder / name) as temporary:
                temporary.write_text(text, encoding="utf-8")
            written.append(folder / name)
    except OSError as error:
        raise OutputNotWritable(
            f"{folder}: cannot write the app there ({error.strerror or error}); choose another folder"
        ) from error
    return written


def is_app_folder(folder: Path) -> bool:
    """Whether the folder holds an app that :func:`write_app_folder` wrote."""
    try:
        return MARK in (folder / "main.py").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False


def require_app_folder(folder: Path) -> None:
    """Check that a server can be started with ``folder``.

    Raises:
        BadInput: if it does not exist, or holds no app.
    """
    if not folder.is_dir():
        raise BadInput(f"{folder} does not exist; make it with: medzsad monailabel init {folder}")
    if not is_app_folder(folder):
        raise BadInput(f"{folder} holds no medzsad app; make one with: medzsad monailabel init NEWDIR")
