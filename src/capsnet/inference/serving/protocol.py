"""Close the connections of clients that do not finish a request's headers."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

#: Seconds for the headers. The time for the body is the guard's.
HEADER_SECONDS = 10.0

_BODY = b'{"detail":"the headers of the request took too long"}'
_ANSWER = (
    b"HTTP/1.1 408 Request Timeout\r\ncontent-type: application/json\r\nconnection: close\r\n"
    b"content-length: " + str(len(_BODY)).encode() + b"\r\n\r\n" + _BODY
)


class ImpatientProtocol(AutoHTTPProtocol):  # type: ignore[misc]
    """uvicorn's protocol, with a time limit for the headers of each request."""

    _timer: asyncio.TimerHandle | None = None
    _since: Any = None

    def connection_made(self, transport: Any) -> None:
        """Wait for the first request."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Wait for the rest of the headers, if a request begins."""
        if self.cycle is None or self.cycle.response_complete:
            self._watch()
        super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def _watch(self) -> None:
        """Start the time of a request, unless it runs: bytes of the same headers do not prolong it."""
        if self._timer is not None:
            if self._since is self.cycle:
                return
            self._timer.cancel()
        self._since = self.cycle
        self._timer = self.loop.call_later(HEADER_SECONDS, self._hang_up, self.cycle)

    def _hang_up(self, before: Any) -> None:
        self._timer = None
        if self.cycle is before and not self.transport.is_closing():  # no request has begun since
            self.transport.write(_ANSWER)
            self.transport.close()
