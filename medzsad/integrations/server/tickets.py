"""Addresses of results that open without the token: a browser sends no header for a frame or a download."""

from __future__ import annotations

import hmac
import re
import secrets
import time
from urllib.parse import parse_qs

LIFE_S = 600.0
_ADDRESS = re.compile(r"/v1/predictions/([0-9a-f]{32})/results(?:\.zip|/.+)")


class Tickets:
    """Tickets of this process: each opens the results of one prediction, for :data:`LIFE_S` seconds."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)

    def issue(self, identifier: str) -> str:
        """Return a ticket for the results of a prediction."""
        until = int(time.time() + LIFE_S)
        return f"{until}-{self._seal(identifier, until)}"

    def admit(self, path: str, query: bytes) -> bool:
        """Return whether a request's query has a ticket for its path.

        Args:
            path: of the request.
            query: as it came.
        """
        address = _ADDRESS.fullmatch(path)
        given = parse_qs(query.decode("latin-1")).get("ticket", [""])[0]
        until, _, seal = given.partition("-")
        if address is None or not re.fullmatch(r"\d{1,12}", until, re.ASCII) or int(until) < time.time():
            return False
        return hmac.compare_digest(seal.encode(), self._seal(address[1], int(until)).encode())

    def _seal(self, identifier: str, until: int) -> str:
        return hmac.digest(self._key, f"{identifier} {until}".encode(), "sha256").hex()
