"""Run functions that release the GIL on a few threads: PyTorch's own OpenMP threads, where it has them.

After an operation those threads keep spinning for milliseconds, in wait for the next. Any other thread would
have to share the processor with them, and whoever waits for it, too. Elsewhere (Windows, a forked process, whose
parent kept the OpenMP threads) a pool of Python threads does the work.

Numba's own pools do not fit: one dies when two Python threads call it at once, as the explorer's web server does,
one when the process forks, as data loaders do, and one needs a library that is seldom there.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import torch

_Work = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_has_forked = False


def for_each(function: Callable[..., Any], tasks: Iterable[tuple[Any, ...]]) -> None:
    """function(*task) for each task, on as many threads as PyTorch may use, the calling one among them.

    Many threads may call this at once. An error in a task is raised here, after the other tasks.
    """
    tasks = list(tasks)
    queue = iter(tasks)  # next() on a list's iterator is atomic
    errors: list[BaseException] = []

    def work(_: object = None) -> None:
        for task in queue:
            try:
                function(*task)
            except BaseException as error:
                errors.append(error)

    threads = min(torch.get_num_threads(), len(tasks))
    parallel = None if _has_forked else _openmp()
    if threads < 2:
        work()
    elif parallel is not None:
        parallel(_Work(work), None, threads, 0)
    else:
        _on_pool(work, threads)
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


def _on_pool(work: Callable[[], None], threads: int) -> None:
    """Nobody waits for helpers that have not begun, so calls from many threads cannot lock each other out."""
    helpers = [_pool().submit(work) for _ in range(threads - 1)]
    work()
    for helper in helpers:
        if not helper.cancel():
            helper.result()


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="capsnet-routing")


def _after_fork() -> None:
    global _has_forked  # noqa: PLW0603
    _has_forked = True  # OpenMP would wait forever for threads that do not exist here
    _pool.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
