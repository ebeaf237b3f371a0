"""Bitwise reproducible training on GPUs.

The fastest form of a GPU operation may add numbers in any order, so its results differ in the last bits.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch.backends import cudnn

from capsnet._support.errors import CapsnetError

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
#: Settings with which cuBLAS is deterministic.
FIXED_WORKSPACES = (":4096:8", ":16:8")


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Use deterministic operations in a block, and raise where there is none.

    On a CPU this changes nothing: capsnet is always deterministic there. On CUDA it selects the deterministic forms of
    PyTorch, cuDNN and cuBLAS. capsnet's own Triton kernels always add in a fixed order. cuBLAS reads its setting at its
    first use. A program that multiplied matrices on the GPU before must have set CUBLAS_WORKSPACE_CONFIG=:4096:8
    itself.

    Args:
        wanted: if False, the block has no effect.

    Raises:
        CapsnetError: an operation in the block has no deterministic form on its device, or the environment has a
            setting of cuBLAS that is not deterministic.
    """
    if not wanted:
        yield
        return
    given = os.environ.get(WORKSPACE)
    if given not in (None, *FIXED_WORKSPACES):
        raise CapsnetError(
            f"{WORKSPACE} is {given!r} in the environment; a deterministic training needs :4096:8, or unset it"
        )
    with ExitStack() as undo:
        undo.callback(
            torch.use_deterministic_algorithms,
            torch.are_deterministic_algorithms_enabled(),
            warn_only=torch.is_deterministic_algorithms_warn_only_enabled(),
        )
        undo.callback(_set_cudnn, cudnn.deterministic, cudnn.benchmark)
        undo.callback(_fill_memory, torch.utils.deterministic.fill_uninitialized_memory)  # type: ignore[attr-defined]
        if given is None:
            undo.callback(os.environ.pop, WORKSPACE, None)
            os.environ[WORKSPACE] = FIXED_WORKSPACES[0]
        torch.use_deterministic_algorithms(True)
        _set_cudnn(deterministic=True, benchmark=False)
        _fill_memory(False)  # would only help to find reads of unwritten memory, and is slow
        try:
            yield
        except RuntimeError as error:
            if "use_deterministic_algorithms" not in str(error):
                raise
            what = str(error).partition(" does not have")[0].partition("\n")[0][:100]
            raise CapsnetError(
                f"an operation has no deterministic form here ({what}); train without --deterministic, or on the CPU"
            ) from error


def _set_cudnn(deterministic: bool, benchmark: bool) -> None:
    cudnn.deterministic, cudnn.benchmark = deterministic, benchmark


def _fill_memory(on: bool) -> None:
    torch.utils.deterministic.fill_uninitialized_memory = on  # type: ignore[attr-defined]
