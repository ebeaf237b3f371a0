"""Read the IDX format of MNIST and similar data sets, strictly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from capsnet._support.errors import CapsnetError, shown
from capsnet.data.binary import opened, read_body

UINT8 = 0x08


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes, gzipped or not.

    Args:
        path: the file.
        dimensions: 3 for images (examples, height, width), 1 for labels (examples,).

    Raises:
        CapsnetError: the file is not an IDX file, is damaged, truncated, or longer than its header says.
    """
    with opened(path) as stream:
        header = stream.read(4 + 4 * dimensions)
        magic = bytes((0, 0, UINT8, dimensions))
        if header[:4] != magic:
            raise CapsnetError(
                f"{shown(path)}: not an IDX file of {dimensions}-dimensional bytes "
                f"(starts with {header[:4].hex() or 'nothing'}, not {magic.hex()}); fetch it again"
            )
        if len(header) < 4 + 4 * dimensions:
            raise CapsnetError(f"{shown(path)}: ends within its header; fetch it again")
        shape = [int(n) for n in np.frombuffer(header, ">u4", offset=4)]
        return np.frombuffer(read_body(stream, path, shape), np.uint8).reshape(shape)
