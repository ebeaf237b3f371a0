"""Run functions in parallel on PyTorch's own OpenMP threads.

The functions must release the GIL, as compiled kernels and PyTorch's operators do.

After an operation, OpenMP threads keep spinning for milliseconds and wait for the next one. A second thread pool would
compete with them for the cores. Operators inside a task use one thread, since they already run in a parallel region.

The calling thread does all the work in two cases: PyTorch was built without OpenMP, or the process was forked. A
forked process has no OpenMP threads, and OpenMP would wait for them forever.

Numba has three thread pools. The first aborts when two Python threads call it at once, as the explorer's web server
does. The second breaks when the process forks, as data loaders do. The third needs a library that is rarely installed.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

_Work = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_has_forked = False
#: A denormal number that is exact in float32.
_DENORMAL, _ONE = np.float32(2.0**-130), np.float32(1)


def for_each(function: Callable[..., Any], tasks: Iterable[tuple[Any, ...]]) -> None:
    """Call function(*task) for each task on PyTorch's threads.

    At most `torch.get_num_threads()` threads work; the calling thread is one of them. Tasks run in the caller's
    inference mode, record no gradients, and take denormal numbers for 0, see `without_denormals` (these modes are per
    thread). Several Python threads may call this at once. An error in a task is raised after all other tasks are done.
    """
    tasks = list(tasks)
    queue = iter(tasks)  # next() on a list's iterator is atomic
    errors: list[BaseException] = []
    inference = torch.is_inference_mode_enabled()

    def work(_: object = None) -> None:
        with torch.inference_mode(inference), torch.no_grad(), without_denormals():
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


def _flushes_denormals() -> bool:
    """Return whether this thread takes denormal numbers, those below 1.2e-38 in float32, for 0."""
    return not _DENORMAL * _ONE


@contextmanager
def without_denormals(flush: bool = True) -> Iterator[None]:
    """Take denormal numbers for 0 in this thread, if asked: some processors need ten times as long for them."""
    if not flush:
        yield
        return
    before = _flushes_denormals()
    torch.set_flush_denormal(True)  # has no effect on processors that cannot
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


@cache
def _openmp() -> Any:
    """Return GOMP_parallel(function, data, threads, flags) of PyTorch, or None.

    The OpenMP libraries of GNU and of LLVM both export it.
    """
    suffix = {"linux": "so", "darwin": "dylib"}.get(sys.platform)
    library = Path(torch.__file__).parent / "lib" / f"libtorch_cpu.{suffix}"
    try:
        parallel = ctypes.CDLL(str(library)).GOMP_parallel  # found in a library that this one links
    except (OSError, AttributeError):
        return None
    parallel.argtypes, parallel.restype = (_Work, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint), None
    return parallel


def _after_fork() -> None:
    global _has_forked  # noqa: PLW0603
    _has_forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
