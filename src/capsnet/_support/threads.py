"""Run functions that release the GIL on PyTorch's own OpenMP threads: compiled kernels, and PyTorch's operators.

After an operation those threads keep spinning for milliseconds, waiting for the next. A second pool would have to
share the cores with them. Operators that run inside a task use one thread, since they find themselves in a parallel
region already.

Without such threads the caller does all the work alone: where PyTorch was built without OpenMP, and in a forked
process, where the parent kept the threads and OpenMP would wait for them forever.

Numba's own pools do not fit: one aborts when two Python threads call it at once, as the explorer's web server does,
one breaks when the process forks, as data loaders do, and one needs a library that is seldom installed.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import torch

_Work = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_has_forked = False


def for_each(function: Callable[..., Any], tasks: Iterable[tuple[Any, ...]]) -> None:
    """Call function(*task) for each task, on at most `torch.get_num_threads()` threads, the calling one among them.

    The tasks see the caller's inference mode, and no gradients are recorded: modes belong to threads. Several Python
    threads may call this at once. An error in a task is raised here, after the other tasks are done.
    """
    tasks = list(tasks)
    queue = iter(tasks)  # next() on a list's iterator is atomic
    errors: list[BaseException] = []
    inference = torch.is_inference_mode_enabled()

    def work(_: object = None) -> None:
        with torch.inference_mode(inference), torch.no_grad():
            for task in queue:
                try:
                    function(*task)
                except BaseException as error:
                    errors.append(error)

    threads = min(torch.get_num_threads(), len(tasks))
    parallel = None if _has_forked or threads < 2 else _openmp()
    if parallel is None:
        work()
    else:
        parallel(_Work(work), None, threads, 0)
    if errors:
        raise errors[0]


@cache
def _openmp() -> Any:
    """GOMP_parallel(function, data, threads, flags) of the OpenMP library that PyTorch uses, or None.

    GNU's and LLVM's libraries both export it.
    """
    suffix = {"linux": "so", "darwin": "dylib"}.get(sys.platform)
    library = Path(torch.__file__).parent / "lib" / f"libtorch_cpu.{suffix}"
    try:
        parallel = ctypes.CDLL(str(library)).GOMP_parallel  # found among what the library links
    except (OSError, AttributeError):
        return None
    parallel.argtypes, parallel.restype = (_Work, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint), None
    return parallel


def _after_fork() -> None:
    global _has_forked  # noqa: PLW0603
    _has_forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
