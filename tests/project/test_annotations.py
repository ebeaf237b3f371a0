"""Annotations are checked where `make test-annotations` says they are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CODE = """
import annotations_checked
annotations_checked.install()
import torch
from jaxtyping import TypeCheckError
from capsnet.layers.decoder import mask
mask(torch.rand(2, 3, 4), torch.tensor([0, 1]))
try:
    mask(torch.rand(2, 3, 4), torch.tensor([0, 1, 2]))
except TypeCheckError:
    print("refused")
"""


def test_a_wrong_shape_is_found() -> None:
    command = [sys.executable, "-c", CODE]
    ended = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True)
    assert ended.stdout == "refused\n"
