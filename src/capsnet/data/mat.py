"""Read MATLAB files, the format of affNIST and SVHN."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from capsnet._support.errors import CapsnetError, shown

#: What SciPy's reader raises on truncated or changed files, besides its own MatReadError.
DAMAGE = (OSError, ValueError, TypeError, LookupError, EOFError, MemoryError, zlib.error)


def read_mat(path: Path) -> Mapping[str, Any]:
    """Read the variables of a MATLAB file; structures become dictionaries.

    Raises:
        CapsnetError: the file cannot be read, is damaged, or has MATLAB's HDF5 format (7.3).
    """
    import scipy.io
    from scipy.io.matlab import MatReadError

    try:
        variables: Mapping[str, Any] = scipy.io.loadmat(str(path), simplify_cells=True, appendmat=False)
    except NotImplementedError as error:
        raise CapsnetError(
            f"{shown(path)}: MATLAB 7.3 files are not read; save it with -v7 instead"
        ) from error
    except (MatReadError, *DAMAGE) as error:
        reason = shown(str(error).splitlines()[0] if str(error) else type(error).__name__)
        raise CapsnetError(
            f"{shown(path)}: not a MATLAB file, or damaged ({reason}); fetch it again"
        ) from error
    return variables
