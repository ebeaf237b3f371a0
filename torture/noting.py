"""`capsnet`, but each process writes down the examples of its steps: `python -m torture.noting FOLDER ARGUMENT…`.

FOLDER/RANK.txt gets a line for each step.
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
    """Write the indices down, then take the step."""
    with (Path(sys.argv[0]) / f"{os.environ['RANK']}.txt").open("a", encoding="utf-8") as file:
        print(*indices.tolist(), file=file)
    return _take_step(stepper, indices, uniforms)


if __name__ == "__main__":
    del sys.argv[0]  # what is left: the folder, in the place of the program's name, and capsnet's arguments
    with patch.object(Stepper, "_eager_step", noting):
        main()
