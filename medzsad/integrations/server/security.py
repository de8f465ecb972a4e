"""Who may ask, from where, and what browsers are told: around every request."""

from __future__ import annotations

import hmac
import ipaddress
import logging
import re
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse

from medzsad.integrations.server.tickets import Tickets

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger("medzsad.serve")
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; font-src 'self'; "
    "connect-src 'self'; frame-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
RESULT_POLICY = "sandbox allow-scripts allow-downloads; frame-ancestors 'self'"
"""A report brings its own policy; here it gets an origin of its own, away from the page's token."""
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}
_METHODS = ("GET", "HEAD", "POST", "DELETE", "OPTIONS")  # a client may write any word for one
_NAME = re.compile(r"[A-Za-z0-9._-]{1,253}")


class Guard:
    """ASGI middleware: checks ``Host``, ``Origin`` and the token, adds headers, and logs without names.

    A page of another site whose name leads to 127.0.0.1 (DNS rebinding) sends that name as ``Host``: only
    addresses, localhost and the names given are answered. A form of another site has its ``Origin``.

    Args:
        app: what answers.
        token: that requests below ``/v1`` must bring; None for no token.
        hosts: names, besides addresses and localhost, that the server is called by.
        origins: that may use the server from pages of their own.
        tickets: that open results without the token.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        token: str | None,
        hosts: Iterable[str] = (),
        origins: Iterable[str] = (),
        tickets: Tickets | None = None,
    ) -> None:
        self._app = app
        self._token = None if token is None else token.encode()
        self._hosts = {"localhost", *(host.lower() for host in hosts)}
        self._origins = set(origins)
        self._tickets = tickets or Tickets()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or refuse."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500

        async def with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Content-Security-Policy", PAGE_POLICY)
            await send(message)

        refused = self._refusal(scope)
        try:
            await (refused or self._app)(scope, receive, with_headers)
        finally:
            route = getattr(scope.get("route"), "path", None) or "-"  # never what the client wrote
            seconds = time.perf_counter() - began
            method = scope["method"] if scope["method"] in _METHODS else "-"
            log.info("%s %s %d %.3f s", method, route, status, seconds)

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self._is_known(host):
            return _refused(421, "this server is not called so; add its name to `allow_hosts`")
        origin = headers.get("origin")
        own = origin is None or origin.partition("://")[2].lower() == host.lower()
        if not own and origin not in self._origins:
            return _refused(403, "requests from pages of other sites are not answered")
        if self._token is None or not scope["path"].startswith("/v1") or scope["method"] == "OPTIONS":
            return None
        if scope["method"] in ("GET", "HEAD") and self._tickets.admit(scope["path"], scope["query_string"]):
            return None
        scheme, _, given = headers.get("authorization", "").partition(" ")
        known = hmac.compare_digest(given.strip().encode("utf-8", "replace"), self._token)
        if scheme.lower() != "bearer" or not known:
            refusal = _refused(401, "this server asks for a token: send Authorization: Bearer TOKEN")
            refusal.headers["WWW-Authenticate"] = "Bearer"
            return refusal
        return None

    def _is_known(self, host: str) -> bool:
        if host.startswith("["):
            name, bracket, port = host[1:].partition("]")
            port = port.removeprefix(":") if bracket else "x"
        else:
            name, _, port = host.partition(":")
        if port and not port.isdecimal():
            return False
        try:
            return bool(ipaddress.ip_address(name))
        except ValueError:
            return bool(_NAME.fullmatch(name)) and name.lower() in self._hosts


def _refused(status: int, detail: str) -> JSONResponse:
    return JSONResponse({"detail": detail}, status)
