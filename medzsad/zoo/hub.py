"""Files of the Hugging Face hub, had as the variables of its own client say.

``HF_ENDPOINT`` names a mirror, ``HF_TOKEN`` (or the token file in ``HF_HOME``) lets into closed repositories,
the cache in ``HF_HOME`` is looked into first, and ``HF_HUB_OFFLINE`` switches downloads off.
"""

from __future__ import annotations

import re
from pathlib import Path

HUB = "https://huggingface.co"
_FILE = re.compile(rf"{re.escape(HUB)}/([^/]+/[^/]+)/resolve/([^/]+)/([^?]+)")


def is_offline() -> bool:
    """Return whether ``HF_HUB_OFFLINE`` switches downloads off."""
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE


def is_hub_file(url: str) -> bool:
    """Return whether ``url`` is the address of a file of the hub."""
    return _FILE.fullmatch(url) is not None


def address(url: str) -> str:
    """Return where ``url`` is had from: at the mirror of ``HF_ENDPOINT`` if it is a file of the hub."""
    if not is_hub_file(url):
        return url
    from huggingface_hub import constants

    return constants.ENDPOINT + url.removeprefix(HUB)


def access_headers(url: str) -> dict[str, str]:
    """Return the headers that a request for ``url`` needs: the user's token, for files of the hub alone."""
    if not is_hub_file(url):
        return {}
    from huggingface_hub import get_token

    token = get_token()
    return {"Authorization": f"Bearer {token}"} if token else {}


def cached_file(url: str) -> Path | None:
    """Return the file of ``url`` in the cache of the hub's own client, if it is there."""
    match = _FILE.fullmatch(url)
    if match is None:
        return None
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(match[1], match[3], revision=match[2])
    return Path(path) if isinstance(path, str) else None
