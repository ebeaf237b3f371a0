"""Arrays from the authors' own code or weights, which routings are compared with."""

from __future__ import annotations

import io
import lzma
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

FOLDER = Path(os.environ.get("CAPSNET_ORACLES", Path(__file__).parents[2] / "shared" / "oracles"))


def arrays(name: str) -> dict[str, Tensor]:
    """The arrays of a file by name; skips where the folder is absent."""
    if not FOLDER.is_dir():
        pytest.skip(f"no oracles: CAPSNET_ORACLES names no folder and there is no {FOLDER}")
    raw = (FOLDER / name).read_bytes()
    with np.load(io.BytesIO(lzma.decompress(raw) if name.endswith(".xz") else raw)) as file:
        return {key: torch.from_numpy(np.array(file[key])) for key in file.files}


def assert_close(found: Tensor, expected: Tensor, limit: float = 1e-4) -> None:
    """Compare relative to the largest number."""
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= limit * expected.abs().max()
