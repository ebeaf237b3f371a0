"""Sharing compiled loops and matrix products among threads, as many as PyTorch uses.

Each worker multiplies with one thread of its own: chunks stay in one core's cache, and no idle thread of a
parallel matrix product spins on a core that a compiled loop needs. Not numba's own `prange`: its default layer
aborts the process when two Python threads enter it at once, and its OpenMP layer when a data loader forks.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import torch

_PIECES = 4  # per thread: enough to even out a thread that the machine slows down
_executors: dict[int, ThreadPoolExecutor] = {}
_lock = threading.Lock()

Work = Callable[[int, int], None]


@dataclass(frozen=True)
class Job:
    """work(start, stop) is to be called on ranges that cover 0 … total − 1 and begin at multiples of grain."""

    work: Work
    total: int
    grain: int = 1

    def ranges(self, pieces: int) -> list[tuple[Work, int, int]]:
        """At most `pieces` calls that make up the job."""
        units = -(-self.total // self.grain)
        pieces = min(pieces, units)
        bounds = [min(units * i // pieces * self.grain, self.total) for i in range(pieces + 1)]
        return [(self.work, start, stop) for start, stop in pairwise(bounds)]


def run(*jobs: Job) -> None:
    """Do independent jobs, side by side; returns when all are done and raises what any of them raised."""
    threads = torch.get_num_threads()
    if threads == 1:
        for job in jobs:
            job.work(0, job.total)
        return
    calls = iter([call for job in jobs for call in job.ranges(threads * _PIECES)])

    inference = torch.is_inference_mode_enabled()

    def drain() -> None:
        with torch.inference_mode(inference), torch.no_grad():  # modes belong to threads
            for (
                work,
                start,
                stop,
            ) in calls:  # next() of a list iterator is atomic: each call goes to one thread
                work(start, stop)

    workers = _workers(threads)
    for future in [workers.submit(drain) for _ in range(threads)]:
        future.result()


def _workers(count: int) -> ThreadPoolExecutor:
    with _lock:
        if count not in _executors:
            executor, started = ThreadPoolExecutor(count, "capsnet-stem"), threading.Barrier(count)

            def begin() -> None:
                torch.set_num_threads(1)  # PyTorch keeps this number per thread …
                started.wait()

            for future in [executor.submit(begin) for _ in range(count)]:
                future.result()
            torch.set_num_threads(count)  # … but remembers the last one for threads yet to come
            _executors[count] = executor
        return _executors[count]


def _forget() -> None:
    """Threads do not survive a fork: let the child start its own."""
    global _lock  # noqa: PLW0603
    _lock = threading.Lock()
    _executors.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
