"""What the results of scans are called, so that no two share a name."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from medzsad.scans.scan import as_text, stem


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


def shown(value: object) -> str:
    """As text that can be encoded, whatever bytes a file name has."""
    return str(value).encode("utf-8", "backslashreplace").decode("utf-8")
