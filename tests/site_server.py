"""A static host for exported sites: files only, from a sub-folder, without special headers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


class _Patient(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """A browser that closes a page hangs up on what it still loads."""


@contextmanager
def hosted(root: Path) -> Iterator[str]:
    """Serve a folder on a free port, as `python -m http.server` does."""
    server = _Patient(("127.0.0.1", 0), partial(_Quiet, directory=str(root)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        thread.join(timeout=20)
        server.server_close()
