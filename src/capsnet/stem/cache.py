"""The planes of the weights used last without gradients, kept for the next call.

Compared by content: an in-place change through `.data` (moving averages do that) leaves the version counter of a
parameter where it was, and reading 21 MB again costs a twentieth of transforming them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from capsnet.stem.spectral import Convolution, Planes
from capsnet.stem.threads import run


@dataclass(frozen=True)
class _Entry:
    conv: Convolution
    weight: Tensor
    planes: Planes


_last: _Entry | None = None


def weight_planes(conv: Convolution, weight: Tensor) -> Planes:
    """The planes of `weight`, from the last call if it had the same."""
    global _last  # noqa: PLW0603
    entry = _last
    if entry is not None and entry.conv is conv and torch.equal(entry.weight, weight):
        return entry.planes
    planes = Planes.empty(conv.plan, weight.shape[0], weight.shape[1])
    run(conv.analyse_weight(weight, planes))
    _last = _Entry(conv, weight.detach().clone(), planes)
    return planes


def clear() -> None:
    """Forget the weights."""
    global _last  # noqa: PLW0603
    _last = None
