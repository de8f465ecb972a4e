"""Recipes and the example scan that come with medzsad: in an installed package, or beside a checkout's."""

from __future__ import annotations

from pathlib import Path

from medzsad.errors import BadInput

_PACKAGE = Path(__file__).parents[1]


def shipped(folder: str) -> Path:
    """Return the folder ``configs`` or ``examples``.

    It may not be there: of a checkout whose top-level folders were left out.
    """
    inside = _PACKAGE / folder
    return inside if inside.is_dir() else _PACKAGE.parent / folder


def file_or_shipped(path: Path, folder: str, ending: str) -> Path:
    """Return a file of the user's: the path itself, or of a mere name the shipped file that is called so.

    Args:
        path: as given, such as ``smoke`` or ``mine/recipe.yaml``.
        folder: where shipped files of that kind lie, such as ``configs``.
        ending: of their names, which may be left out.

    Raises:
        BadInput: if a mere name is neither a file's nor one of theirs.
    """
    if path.exists() or path.parent != Path() or path.suffix not in ("", ending):
        return path
    name = path.name.removesuffix(ending)
    known = sorted(file.name.removesuffix(ending) for file in shipped(folder).glob(f"*{ending}"))
    if name not in known:
        listed = ", ".join(known)
        raise BadInput(
            f"{path}: there is no such file, and none of that name in medzsad, which has {listed}."
        )
    return shipped(folder) / f"{name}{ending}"
