"""When the fast form wins: both forms' costs, in multiply-adds of a library convolution.

The constants were fitted to timings on 2 Zen 4 cores (see tests/test_stem.py for what must hold): a number of a
plane takes about as long to transform as some multiply-adds take, and the weights' planes must at least be read.
"""

from __future__ import annotations

import enum
import functools
import math
from collections.abc import Sequence

import torch

from capsnet.stem.points import plan

_INPUT = 70.0  # per number of the inputs' planes
_WEIGHT = 70.0  # per number of the weights' planes, transformed
_READ = 14.0  # per number of the weights' planes, when they are at hand from the last call
_OUTPUT = 200.0  # per number of the outputs' planes
_MARGIN = 1.2  # the library wins a draw
_FEW = (
    80  # output places, for which bringing the weights in order costs the library more than the arithmetic …
)
_MANY_WEIGHTS = 1 << 20  # … if there are as many as this
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
    POINTS_IF_KNOWN = enum.auto()  # by points if the weights' planes are at hand, else the library
    PATCHES = enum.auto()  # patches times packed weights


def choose(batch: int, height: int, width: int, weight: Sequence[int], stride: int, train: bool) -> Choice:
    """The fastest way to convolve inputs of (batch, channels, height, width).

    weight: (out, channels, k1, k2). train: gradients are wanted, so the weights will be new each time.
    """
    out, channels, *kernel = weight
    if min(kernel) < 5 or batch < 1:
        return Choice.LIBRARY
    counts = _arithmetic(height, width, (kernel[0], kernel[1]), stride)
    if counts is None:
        return Choice.LIBRARY
    direct, products, planes = counts
    multiply = products * batch * channels * (out + _INPUT) + _OUTPUT * planes * batch * out
    limit = direct * batch * channels * out / _MARGIN
    if 4 * products * channels * max(out, 128) <= _LARGEST:
        if multiply + _WEIGHT * products * channels * out < limit:
            return Choice.POINTS
        if not train and multiply + _READ * products * channels * out < limit:
            return Choice.POINTS_IF_KNOWN
    few = batch * direct <= _FEW * kernel[0] * kernel[1]
    if not train and few and math.prod(weight) >= _MANY_WEIGHTS and _packing_is_possible():
        return Choice.PATCHES
    return Choice.LIBRARY


def _packing_is_possible() -> bool:
    """Whether this build of PyTorch can multiply by a matrix that was packed before."""
    return torch.backends.mkldnn.is_available() and all(  # type: ignore[no-untyped-call]
        hasattr(torch.ops.mkldnn, name) for name in ("_reorder_linear_weight", "_linear_pointwise")
    )
