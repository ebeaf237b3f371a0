"""What the explorer's server accepts: JSON, and picture files at one path."""

from __future__ import annotations

from capsnet._support.guard import Refused

#: For comparison, a scene of two 28×28 digits takes about 30 kB of JSON.
MAX_JSON = 2_000_000
MAX_PICTURE = 16_000_000


def accepts(path: str, kind: str) -> int:
    """Return the largest number of bytes of a body.

    Raises:
        Refused: the content type is not supported.
    """
    picture = path == "/api/picture"
    if picture and not (kind.startswith("image/") or kind == "application/octet-stream"):
        raise Refused(415, "send the picture file, with its content type (image/png, …)")
    if not picture and kind != "application/json":
        raise Refused(415, "send JSON, with content type application/json")
    return MAX_PICTURE if picture else MAX_JSON
