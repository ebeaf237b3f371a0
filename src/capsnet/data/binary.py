"""Strict reading of binary files: what their header says must be there, and nothing more."""

from __future__ import annotations

import gzip
import io
import math
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from capsnet._support.errors import CapsnetError, shown

#: A header can claim anything; the largest real sets here and in MNIST's format have 0.6 GB.
MAX_BYTES = 2**31
GZIP_MAGIC = b"\x1f\x8b"


@contextmanager
def opened(path: Path) -> Iterator[io.BufferedIOBase]:
    """The file's contents, unzipped if they are gzipped (the contents tell, not the name).

    Raises:
        CapsnetError: it cannot be opened; or, inside the block, it turns out to be a damaged gzip file.
    """
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise CapsnetError(f"{shown(path)}: cannot be read, it is no file; check the path")
    try:
        with path.open("rb") as raw:
            zipped = raw.read(2) == GZIP_MAGIC
            raw.seek(0)
            yield gzip.GzipFile(fileobj=raw) if zipped else raw
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise CapsnetError(f"{shown(path)}: damaged gzip file ({error}); fetch it again") from error
    except OSError as error:
        raise CapsnetError(
            f"{shown(path)}: cannot be read ({error.strerror}); check path and rights"
        ) from error


def read_body(stream: io.BufferedIOBase, path: Path, shape: Sequence[int], item_bytes: int = 1) -> bytearray:
    """The rest of the file, which must be an array of exactly this shape.

    Raises:
        CapsnetError: the shape is absurd, or there are fewer or more bytes.
    """
    size = math.prod(shape) * item_bytes
    if min(shape) < 1 or size > MAX_BYTES:
        raise CapsnetError(
            f"{shown(path)}: its header claims the shape {tuple(shape)}, which is absurd; fetch it again"
        )
    # One byte more than wanted, so that a longer file shows; never the whole of an endless one.
    contents = bytearray()
    while len(contents) <= size and (piece := stream.read(min(2**24, size + 1 - len(contents)))):
        contents += piece
    if len(contents) != size:
        fault = "is truncated" if len(contents) < size else "has bytes left over"
        raise CapsnetError(
            f"{shown(path)}: {fault}, its header says {tuple(shape)} = {size} bytes; fetch it again"
        )
    return contents
