"""Run functions that release the GIL on a few threads.

Numba's own thread pools do not fit here: one dies when two Python threads call it at once (the explorer's web
server does), one when the process forks (as data loaders do), one needs a library that is seldom there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

_pool: ThreadPoolExecutor | None = None


def for_each(function: Callable[..., Any], tasks: Iterable[tuple[Any, ...]]) -> None:
    """function(*task) for each task, on as many threads as PyTorch may use, the calling one among them.

    The caller never waits for a task that nobody has begun, so calls from many threads at once cannot lock each
    other out, and a forked child without the pool's threads does everything itself.
    """
    queue = iter(list(tasks))  # next() on a list's iterator is atomic

    def work() -> None:
        for task in queue:
            function(*task)

    helpers = [_get_pool().submit(work) for _ in range(torch.get_num_threads() - 1)]
    try:
        work()
    finally:
        for helper in helpers:
            if not helper.cancel():
                helper.result()


def _get_pool() -> ThreadPoolExecutor:
    global _pool  # noqa: PLW0603  one for the process
    if _pool is None:
        _pool = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="capsnet-routing")
    return _pool


def _forget_pool() -> None:
    global _pool  # noqa: PLW0603
    _pool = None


if hasattr(os, "register_at_fork"):  # threads do not survive a fork
    os.register_at_fork(after_in_child=_forget_pool)
