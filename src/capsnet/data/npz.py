"""NumPy archives of prepared data."""

from __future__ import annotations

import os
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from capsnet.data.files import shown
from capsnet.errors import CapsnetError


def write_npz(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays so that the file is there whole or not at all.

    Raises:
        CapsnetError: the directory cannot be written to, or the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as stream:
                np.savez(stream, **cast("dict[str, Any]", arrays))
            Path(temporary).replace(path)
        finally:
            Path(temporary).unlink(missing_ok=True)
    except OSError as error:
        raise CapsnetError(
            f"{shown(path)}: cannot be written ({error.strerror}); free some space or set XDG_CACHE_HOME"
        ) from error


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """All arrays of a file; nothing in it is executed.

    Raises:
        CapsnetError: it is damaged, or no such file.
    """
    try:
        # Opened here: np.load leaves a damaged file open.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise CapsnetError(
            f"{shown(path)}: not a NumPy archive, or damaged; delete it and prepare it again"
        ) from error
