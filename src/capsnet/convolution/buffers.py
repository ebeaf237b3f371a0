"""Large scratch tensors that return to a pool when PyTorch frees them.

The planes take hundreds of megabytes, and fresh pages cost more time than the arithmetic done on them. A buffer
belongs to whoever holds its tensor, a saved one to its graph; only when the storage dies is it lent again. So
nothing is shared between threads or live graphs, and no one has to give anything back.
"""

from __future__ import annotations

import math
import os
import threading
import weakref

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_ALIGN = 64  # bytes; matrix products repeat bit for bit only on equally aligned memory
KEEP = 1 << 30  # bytes that may lie idle
_idle: list[NDArray[np.uint8]] = []
_lock = threading.RLock()  # re-entrant: a collection inside `take` may end another buffer's life


def take(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """An uninitialised contiguous CPU tensor, from the pool when a buffer fits."""
    size = math.prod(shape) * dtype.itemsize
    with _lock:
        fitting = [base for base in _idle if size + _ALIGN <= base.nbytes <= 2 * size + (1 << 20)]
        base = min(fitting, key=lambda array: array.nbytes) if fitting else None
        if base is not None:
            _idle[:] = [other for other in _idle if other is not base]
    if base is None:
        base = np.empty(size + _ALIGN, np.uint8)
    start = -base.ctypes.data % _ALIGN
    lent = base[start : start + size]
    # the tensor's storage holds `lent` alone, so `lent` dies with it
    weakref.finalize(lent, _give_back, base).atexit = False
    return torch.from_numpy(lent).view(dtype).view(shape)


def _give_back(base: NDArray[np.uint8]) -> None:
    with _lock:
        _idle.append(base)
        total = sum(array.nbytes for array in _idle)
        while total > KEEP:
            total -= _idle.pop(0).nbytes


def idle_bytes() -> int:
    """How much memory waits to be lent."""
    with _lock:
        return sum(base.nbytes for base in _idle)


def clear() -> None:
    """Return the idle buffers to the system."""
    with _lock:
        _idle.clear()


def _renew_lock() -> None:
    """Whoever held it when the process forked is not there to give it back. The list is whole between any two steps."""
    global _lock  # noqa: PLW0603
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)
