"""Read binary files strictly: exactly as many bytes as their header says."""

from __future__ import annotations

import gzip
import io
import math
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from capsnet._support.errors import CapsnetError, shown

#: Upper limit, since a header can claim any size. The largest real data sets have 0.6 GB.
MAX_BYTES = 2**31
GZIP_MAGIC = b"\x1f\x8b"


@contextmanager
def opened(path: Path) -> Iterator[io.BufferedIOBase]:
    """Open a file, and decompress it if its first bytes are those of gzip.

    Raises:
        CapsnetError: the file cannot be opened; or, inside the block, its gzip data are damaged.
    """
    if path.exists() and not path.is_file():  # reading a pipe would block
        raise CapsnetError(f"{shown(path)}: cannot be read, it is not a file; check the path")
    try:
        with path.open("rb") as raw:
            zipped = raw.read(2) == GZIP_MAGIC
            raw.seek(0)
            yield gzip.GzipFile(fileobj=raw) if zipped else raw
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise CapsnetError(f"{shown(path)}: damaged gzip file ({error}); fetch it again") from error
    except OSError as error:
        raise CapsnetError(
            f"{shown(path)}: cannot be read ({error.strerror}); check path and permissions"
        ) from error


def read_body(stream: io.BufferedIOBase, path: Path, shape: Sequence[int], item_bytes: int = 1) -> bytearray:
    """Read the rest of a file, which must be an array of exactly this shape.

    Raises:
        CapsnetError: the shape is empty or too large, or there are fewer or more bytes.
    """
    size = math.prod(shape) * item_bytes
    if min(shape) < 1 or size > MAX_BYTES:
        raise CapsnetError(
            f"{shown(path)}: its header has the impossible shape {tuple(shape)}; fetch it again"
        )
    # Read one byte more than expected: this detects longer files and never reads an endless one.
    contents = bytearray()
    while len(contents) <= size and (piece := stream.read(min(2**24, size + 1 - len(contents)))):
        contents += piece
    if len(contents) != size:
        fault = "is truncated" if len(contents) < size else "has extra bytes at the end"
        raise CapsnetError(
            f"{shown(path)}: {fault}, its header says {tuple(shape)} = {size} bytes; fetch it again"
        )
    return contents
