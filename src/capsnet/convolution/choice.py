"""When which algorithm wins: costs in multiply-adds of a library convolution.

The constants were fitted to timings on 2 Zen 4 cores: transforming one number of a plane takes as long as some
multiply-adds, and the weights' planes must at least be read. Training costs are a third of a whole step's.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from capsnet._support import dispatch
from capsnet.convolution.buffers import LARGE
from capsnet.convolution.im2col import Im2col
from capsnet.convolution.winograd import Pair, Winograd, winograd

Algorithm = Im2col | Winograd

_INPUT = {True: 46.0, False: 66.0}  # per number of the inputs' planes: in training, without gradients
_WEIGHT = 40.0  # per number of the weights' planes, which training makes in each step
_READ = 13.0  # the same, when they are at hand from the last call
_OUTPUT = 60.0  # per number of the outputs' planes
_MARGIN = 1.2  # the library wins a draw
# Outputs from which on im2col is as fast as the library without gradients. Below `LARGE` it gains nothing there, but an
# image gets the same bits in batches of a few images and of many.
_FEW = 1 << 18
_LARGEST = 1 << 29  # bytes of planes for the weights or for 128 images


def allowed(*tensors: Tensor) -> bool:
    """Return whether tensors are float32 on the CPU, in eager mode, and fast paths are on."""
    return (
        not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
        and all(tensor.dtype == torch.float32 and tensor.device.type == "cpu" for tensor in tensors)
        and dispatch.may_stand_in(*tensors)
    )


def choose(x: Sequence[int], weight: Sequence[int], stride: Pair, train: bool) -> Algorithm | None:
    """Return the fastest algorithm for these shapes; None for the library's.

    It follows from the sizes alone, never from what was computed before: the same images get the same bits.
    Without gradients the weights' planes are taken to be at hand, as they are from the second call on.

    Args:
        x: shape of the input, (batch, channels, height, width).
        weight: shape of the kernel, (out, channels, k1, k2).
        stride: of rows and columns, at least 1.
        train: gradients are wanted, so the weights will be new each time.
    """
    batch, channels, *size = x
    out, expected, *kernel = weight
    if channels != expected or min(stride) < 1 or any(n < k for n, k in zip(size, kernel, strict=True)):
        return None  # the library explains it
    rows, columns = ((n - k) // s + 1 for n, k, s in zip(size, kernel, stride, strict=True))
    direct = rows * columns * kernel[0] * kernel[1]
    if channels * kernel[0] * kernel[1] <= 2 * out:
        return Im2col(stride) if batch * rows * columns * out >= (LARGE if train else _FEW) else None
    if min(kernel) < 5 or batch < 1:
        return None
    try:
        found = winograd((size[0], size[1]), (kernel[0], kernel[1]), stride)
    except ValueError:
        return None
    inputs = found.planes * channels * stride[0] * stride[1]
    if 4 * inputs * max(out, 128) > _LARGEST:
        return None
    cost = inputs * batch * (out + _INPUT[train]) + _OUTPUT * found.planes * batch * out
    cost += (_WEIGHT if train else _READ) * inputs * out
    return found if cost < direct * batch * channels * out / _MARGIN else None
