"""When the fast form wins: both forms' costs, in multiply-adds of a library convolution.

The constants were fitted to timings on 2 Zen 4 cores: transforming one number of a plane takes as long as some
multiply-adds, and the weights' planes must at least be read. Training costs are a third of a whole step's.
"""

from __future__ import annotations

import enum
import functools
import math
from collections.abc import Sequence

import torch

from capsnet.convolution.winograd import plan

_INPUT = {True: 46.0, False: 66.0}  # per number of the inputs' planes: in training, without gradients
_WEIGHT = 40.0  # per number of the weights' planes, which training makes in each step
_READ = 13.0  # the same, when they are at hand from the last call
_OUTPUT = 60.0  # per number of the outputs' planes
_MARGIN = 1.2  # the library wins a draw
# For few output places and many weights the library takes longer to bring the weights in order than to multiply.
_FEW = 80
_MANY_WEIGHTS = 1 << 20
_LARGEST = 1 << 29  # bytes of planes for the weights or for 128 images


@functools.lru_cache(maxsize=256)
def _arithmetic(height: int, width: int, kernel: tuple[int, int], stride: int) -> tuple[int, int, int] | None:
    """Multiply-adds per image and pair of channels, direct and fast; planes. None: there is no fast form."""
    try:
        found = plan(height, width, kernel, (stride, stride))
    except ValueError:
        return None
    return found.y.outputs * found.x.outputs * kernel[0] * kernel[1], found.products, found.planes


class Choice(enum.Enum):
    """How to convolve."""

    LIBRARY = enum.auto()
    POINTS = enum.auto()
    PATCHES = enum.auto()  # a product of patches and weights


def choose(batch: int, height: int, width: int, weight: Sequence[int], stride: int, train: bool) -> Choice:
    """The fastest way to convolve inputs of (batch, channels, height, width).

    It follows from the sizes alone, never from what was computed before: the same images get the same bits.
    Without gradients the weights' planes are taken to be at hand, as they are from the second call on.

    weight: (out, channels, k1, k2). train: gradients are wanted, so the weights will be new each time.
    """
    out, channels, *kernel = weight
    if min(kernel) < 5 or batch < 1:
        return Choice.LIBRARY
    counts = _arithmetic(height, width, (kernel[0], kernel[1]), stride)
    if counts is None:
        return Choice.LIBRARY
    direct, products, planes = counts
    multiply = products * batch * channels * (out + _INPUT[train]) + _OUTPUT * planes * batch * out
    limit = direct * batch * channels * out / _MARGIN
    if 4 * products * channels * max(out, 128) <= _LARGEST:
        weights = _WEIGHT if train else _READ
        if multiply + weights * products * channels * out < limit:
            return Choice.POINTS
    few = batch * direct <= _FEW * kernel[0] * kernel[1]
    if not train and few and math.prod(weight) >= _MANY_WEIGHTS and _has_linear():
        return Choice.PATCHES
    return Choice.LIBRARY


def _has_linear() -> bool:
    """Whether this build of PyTorch has oneDNN's matrix product as an operator."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")  # type: ignore[no-untyped-call]
