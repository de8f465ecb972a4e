"""Connections that send no request are closed, so that they keep no place from others."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

TICK_S = 10.0


class PromptProtocol(H11Protocol):
    """uvicorn's HTTP, for clients that send the head of a request within two ticks.

    uvicorn itself only ends connections that are idle after an answer, and waits for a head without end.
    """

    _idle_ticks = 0
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Begin to watch a connection."""
        super().connection_made(transport)
        self._timer = self.loop.call_later(TICK_S, self._tick)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop watching it."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def _tick(self) -> None:
        is_busy = self.cycle is not None and not self.cycle.response_complete
        self._idle_ticks = 0 if is_busy else self._idle_ticks + 1
        if self._idle_ticks >= 2:
            self.transport.close()
            return
        self._timer = self.loop.call_later(TICK_S, self._tick)
