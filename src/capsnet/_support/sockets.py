"""Listen on a TCP port."""

from __future__ import annotations

import socket

from capsnet._support.errors import CapsnetError

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def listen(host: str, port: int) -> socket.socket:
    """Bind a listening socket, before the slow loading of a model.

    Raises:
        CapsnetError: the port is taken, or the address does not belong to this machine.
    """
    if not 0 <= port <= 65535:
        raise CapsnetError(f"--port {port}: must be from 0 (picks a free port) to 65535")
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=512)
    except (OSError, UnicodeError) as error:  # UnicodeError: the name has an empty or too long part
        reason = getattr(error, "strerror", None) or "this is no host name"
        raise CapsnetError(f"cannot listen on {host} port {port}: {reason}; choose another --port") from error
