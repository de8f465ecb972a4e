"""The secret that a server and its clients share."""

from __future__ import annotations

import re
from pathlib import Path

from medzsad.errors import BadInput
from medzsad.limits import require_file

SHORTEST = 16


def read_token(path: Path) -> str:
    """Return the secret that a file holds.

    Raises:
        BadInput: if it cannot be read, or the secret is too short or not printable ASCII.
    """
    try:
        text = require_file(path).read_bytes()[:4096].decode("ascii", "replace").strip()
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror or error})") from error
    if len(text) < SHORTEST or not re.fullmatch(r"[!-~]+", text):
        raise BadInput(
            f"{path}: a token has {SHORTEST} letters or more, ASCII without blanks; make one with: "
            "openssl rand -hex 32"
        )
    return text
