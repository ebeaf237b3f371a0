"""Run `capsnet` and log the examples of each step into a folder.

Usage: `python -m torture.noting FOLDER ARGUMENT…`. Each rank writes one line per step to FOLDER/RANK.txt.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from unittest.mock import patch

from torch import Tensor

from capsnet.cli import main
from capsnet.training.step import Stepper

_take_step = Stepper._eager_step


def noting(stepper: Stepper, indices: Tensor, uniforms: Tensor) -> Tensor:
    """Log the indices, then take the step."""
    with (Path(sys.argv[0]) / f"{os.environ['RANK']}.txt").open("a", encoding="utf-8") as file:
        print(*indices.tolist(), file=file)
    return _take_step(stepper, indices, uniforms)


if __name__ == "__main__":
    del sys.argv[0]  # now the folder takes the place of the program's name, before capsnet's arguments
    with patch.object(Stepper, "_eager_step", noting):
        main()
