"""Large scratch tensors whose memory is reused once PyTorch frees them.

The planes of a convolution take hundreds of megabytes. The system zeroes fresh memory page by page, which takes longer
than the arithmetic done there, and `malloc` returns blocks of this size to the system each time. A buffer is reused
once its tensor's storage is freed; callers release nothing, and no two live tensors share memory.
"""

from __future__ import annotations

import math
import weakref

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

_ALIGN = 64  # bytes; matrix products repeat bit for bit only on equally aligned memory
KEEP = 1 << 30  # bytes that may lie idle
LARGE = 1 << 21  # numbers in a tensor from which on fresh memory costs as much time as a ReLU or more
# Each step below is one operation on the dictionary, so that neither threads nor forks nor finalizers need a lock.
_idle: dict[int, NDArray[np.uint8]] = {}


def take(*shape: int) -> Float[Tensor, "..."]:
    """Return an uninitialised contiguous float32 tensor on the CPU."""
    size = 4 * math.prod(shape)
    base = _find(size + _ALIGN, 2 * size + (1 << 20))
    start = -base.ctypes.data % _ALIGN
    lent = base[start : start + size]
    # The tensor's storage is the only owner of `lent`, so `lent` dies with it.
    weakref.finalize(lent, _give_back, base).atexit = False
    return torch.from_numpy(lent).view(torch.float32).view(shape)


def take_channels_last(batch: int, channels: int, height: int, width: int) -> Float[Tensor, "b c h w"]:
    """Return an uninitialised float32 tensor whose memory format is `torch.channels_last`."""
    return take(batch, height, width, channels).permute(0, 3, 1, 2)


def _find(least: int, most: int) -> NDArray[np.uint8]:
    """Take the smallest idle buffer of least … most bytes, or make one."""
    for size, key in sorted((base.nbytes, key) for key, base in list(_idle.items())):
        if least <= size <= most and (base := _idle.pop(key, None)) is not None:
            return base
    return np.empty(least, np.uint8)


def _give_back(base: NDArray[np.uint8]) -> None:
    _idle[id(base)] = base
    while idle_bytes() > KEEP:
        for key in list(_idle)[:1]:  # the oldest
            _idle.pop(key, None)


def idle_bytes() -> int:
    """Return how much memory waits for reuse."""
    return sum(base.nbytes for base in list(_idle.values()))


def clear() -> None:
    """Return the idle buffers to the system."""
    _idle.clear()
