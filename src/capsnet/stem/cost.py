"""When the fast form wins: both forms' costs, in multiply-adds of a library convolution.

The constants were fitted to timings on 2 Zen 4 cores (see tests/test_stem.py for what must hold): a number of a
plane takes about as long to transform as some multiply-adds take, and the weights' planes must at least be read.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

from capsnet.stem.points import plan

_INPUT = 70.0  # per number of the inputs' planes
_WEIGHT = 70.0  # per number of the weights' planes, transformed
_READ = 14.0  # per number of the weights' planes, when they are at hand from the last call
_OUTPUT = 200.0  # per number of the outputs' planes
_MARGIN = 1.2  # the library wins a draw
_LARGEST = 1 << 29  # bytes of planes for the weights or for 128 images


@functools.lru_cache(maxsize=256)
def _arithmetic(height: int, width: int, kernel: tuple[int, int], stride: int) -> tuple[int, int, int] | None:
    """Multiply-adds per image and pair of channels, direct and fast; planes. None: there is no fast form."""
    try:
        found = plan(height, width, kernel, (stride, stride))
    except ValueError:
        return None
    return found.y.outputs * found.x.outputs * kernel[0] * kernel[1], found.products, found.planes


def wins(batch: int, height: int, width: int, weight: Sequence[int], stride: int, train: bool) -> bool:
    """Whether inputs of (batch, channels, height, width) are better convolved by points.

    weight: (out, channels, k1, k2). train: gradients are wanted, so the weights will be new each time.
    """
    out, channels, *kernel = weight
    if min(kernel) < 5 or batch < 1:
        return False
    counts = _arithmetic(height, width, (kernel[0], kernel[1]), stride)
    if counts is None:
        return False
    direct, products, planes = counts
    if 4 * products * channels * max(out, 128) > _LARGEST:
        return False
    multiply = products * (batch * channels * out + _INPUT * batch * channels)
    weights = products * channels * out * (_WEIGHT if train else _READ)
    return _MARGIN * (multiply + weights + _OUTPUT * planes * batch * out) < direct * batch * channels * out
