"""The IDX format of MNIST and its relatives, read strictly."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import IO, cast

import numpy as np
from numpy.typing import NDArray

from capsnet.data.files import shown
from capsnet.errors import CapsnetError

#: A header can claim anything; the largest real set (EMNIST, 814,255 images) has 0.6 GB.
MAX_BYTES = 2**31
GZIP_MAGIC = b"\x1f\x8b"
UINT8 = 0x08


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes, gzipped or not (its contents tell, not its name).

    Args:
        path: the file.
        dimensions: 3 for images (examples, height, width), 1 for labels (examples,).

    Raises:
        CapsnetError: the file is not such a file, is damaged, truncated, or longer than its header says.
    """
    try:
        with path.open("rb") as raw:
            zipped = raw.read(2) == GZIP_MAGIC
            raw.seek(0)
            stream = cast("IO[bytes]", gzip.GzipFile(fileobj=raw)) if zipped else raw
            return _read(stream, path, dimensions)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise CapsnetError(f"{shown(path)}: damaged gzip file ({error}); fetch it again") from error
    except OSError as error:
        raise CapsnetError(
            f"{shown(path)}: cannot be read ({error.strerror}); check the path and rights"
        ) from error


def _read(stream: IO[bytes], path: Path, dimensions: int) -> NDArray[np.uint8]:
    header = stream.read(4 + 4 * dimensions)
    magic = bytes((0, 0, UINT8, dimensions))
    if header[:4] != magic:
        raise CapsnetError(
            f"{shown(path)}: not an IDX file of {dimensions}-dimensional bytes "
            f"(starts with {header[:4].hex() or 'nothing'}, not {magic.hex()}); fetch it again"
        )
    if len(header) < 4 + 4 * dimensions:
        raise CapsnetError(f"{shown(path)}: ends within its header; fetch it again")
    shape = tuple(int(n) for n in np.frombuffer(header, ">u4", offset=4))
    size = math.prod(shape)
    if size == 0 or size > MAX_BYTES:
        raise CapsnetError(
            f"{shown(path)}: its header claims the shape {shape}, which is absurd; fetch it again"
        )
    # One byte more than wanted, so that a longer file shows; never the whole of an endless one.
    contents = bytearray()
    while len(contents) <= size and (piece := stream.read(min(2**24, size + 1 - len(contents)))):
        contents += piece
    if len(contents) != size:
        fault = "is truncated" if len(contents) < size else "has bytes left over"
        raise CapsnetError(f"{shown(path)}: {fault}, its header says {shape} = {size} bytes; fetch it again")
    return np.frombuffer(contents, np.uint8).reshape(shape)
