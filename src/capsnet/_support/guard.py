"""Check HTTP requests: host, origin, content type, size and time.

A server on the user's computer gets requests from every web site in the same browser.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",
}


#: Bytes that the bodies of all requests in a process may hold together.
MAX_HELD = 256_000_000


class Refused(Exception):
    """Signal that the guard refused a request."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


class Guard:
    """Check host, origin, content type and body size of requests (ASGI).

    The check of the host protects against DNS rebinding, the check of the origin against other web sites. The guard
    reads the body, up to its limit, before anything parses it.

    Args:
        app: the application to guard.
        hosts: host names that the server accepts; "*" accepts all.
        accepts: returns the largest body, in bytes, of a POST to a path with a content type, or raises `Refused`.
        seconds: largest time that a body may take to arrive. None: any.
    """

    def __init__(
        self,
        app: ASGIApp,
        hosts: Iterable[str],
        accepts: Callable[[str, str], int],
        seconds: float | None = None,
    ) -> None:
        self.app = app
        self.hosts = frozenset(name.lower() for name in hosts)
        self.accepts, self.seconds = accepts, seconds
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on allowed requests, and add the security headers to every response."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # the server has no web sockets
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", []), *own]}
            await send(message)

        body = bytearray()
        try:
            refused = None
            try:
                async with asyncio.timeout(self.seconds):
                    arrived = await self._read(receive, self.check(scope), body)
            except Refused as error:
                refused = error
            except TimeoutError:
                refused = Refused(408, f"the body took more than {self.seconds:g} seconds")
            if refused is not None:
                await _answer(send_with_headers, refused)
            elif arrived:
                await self.app(scope, _replay(bytes(body), receive), send_with_headers)
        finally:
            self._held -= len(body)

    def check(self, scope: Scope) -> int:
        """Return the largest number of bytes that the body may have.

        Raises:
            Refused: wrong host or origin, unsupported content type, too large a body, or an invalid path.
        """
        if "\0" in scope["path"]:  # not a valid file name; Starlette's static files may end in a traceback
            raise Refused(404, "this page does not exist")
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]
        }
        host = headers.get("host", "")
        if "*" not in self.hosts and _hostname(host) not in self.hosts:
            raise Refused(403, "wrong host name; open the address that the server printed")
        origin = headers.get("origin")
        # Not the scheme: behind a proxy with TLS, the page has https and this server sees http.
        if origin is not None and origin.lower().partition("://")[2] != host.lower():
            raise Refused(403, "requests from other origins are refused")
        if headers.get("sec-fetch-site") == "cross-site" and scope["method"] not in ("GET", "HEAD"):
            raise Refused(403, "requests from other sites are refused")
        if scope["method"] != "POST":
            return 0
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        limit = self.accepts(scope["path"], kind)
        announced = headers.get("content-length", "0")
        if not announced.isdigit() or int(announced) > limit:
            raise Refused(413, f"the body may have up to {limit:,} bytes")
        return limit

    async def _read(self, receive: Receive, limit: int, body: bytearray) -> bool:
        """Read the whole body; return False if the client went away.

        Raises:
            Refused: the body is longer than `limit` bytes, or all bodies together hold too much memory.
        """
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return False
            part = message.get("body", b"")
            body += part
            self._held += len(part)
            if len(body) > limit:
                raise Refused(413, f"the body may have up to {limit:,} bytes")
            if self._held > MAX_HELD:
                raise Refused(503, "too many requests are in work; try again in a second")
            if not message.get("more_body", False):
                return True


def _hostname(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that repeats the body, then passes on later messages."""
    message: Message | None = {"type": "http.request", "body": body, "more_body": False}

    async def once() -> Message:
        nonlocal message
        if message is None:
            return await receive()
        given, message = message, None
        return given

    return once


async def _answer(send: Send, refused: Refused) -> None:
    body = json.dumps({"detail": refused.reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if refused.status in (408, 413, 503):  # the rest of the body stays unread
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
