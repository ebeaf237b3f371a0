"""Read and write NumPy archives of prepared data."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from capsnet._support.errors import CapsnetError, shown
from capsnet._support.files import write_atomically

#: Upper limit for all arrays together, uncompressed. Prepared smallNORB has 0.23 GB.
MAX_BYTES = 2**31
#: What zipfile and NumPy raise on truncated or changed files.
DAMAGE = (
    OSError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    SyntaxError,
    MemoryError,
    RuntimeError,  # encrypted, or an unknown compression
    zlib.error,
    zipfile.BadZipFile,
)


def write_npz(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays to a file atomically.

    Raises:
        CannotWrite: the folder is not writable, or the disk is full.
    """

    def save(beside: Path) -> None:
        with beside.open("wb") as stream:  # given a path, NumPy would add an ending
            np.savez(stream, **cast("dict[str, Any]", arrays))

    write_atomically(path, save)


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """Read all arrays of a file. Never runs code from it.

    Raises:
        CapsnetError: the file is missing, damaged, or has another format.
    """
    try:
        # Opened here, since np.load does not close a damaged file.
        with path.open("rb") as stream:
            with zipfile.ZipFile(stream) as archive:
                if sum(member.file_size for member in archive.infolist()) > MAX_BYTES:
                    raise ValueError("too large")
            stream.seek(0)
            with np.load(stream, allow_pickle=False) as file:  # noqa: TID251
                arrays = {name: file[name] for name in file.files}
            if not all(isinstance(array, np.ndarray) for array in arrays.values()):
                raise ValueError("not all members are arrays")
            return arrays
    except DAMAGE as error:
        raise CapsnetError(
            f"{shown(path)}: not a NumPy archive, or damaged; delete it and prepare it again"
        ) from error
