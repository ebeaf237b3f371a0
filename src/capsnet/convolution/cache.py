"""What inference computes from the weights once: their planes.

Recognised by content: an in-place change through `.data` (moving averages do that) leaves a parameter's version
counter where it was. Every number is compared, bit for bit, with a copy: no two kernels are taken for the same, as
they could be by any sum. It costs one copy of the weights in memory, a sixth of their planes in the paper's network,
and reading both: 2 ms there, where convolving four images takes 25. One or two do not come here, see cost.py.

Both are freed with the memory of the weights. They are no buffers of the pool, so the system gets them back.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from capsnet.convolution import kernels
from capsnet.convolution.spectral import Convolution, Planes
from capsnet.convolution.threads import Job, run


@dataclass
class Prepared:
    """What was made of one kernel."""

    weight: Tensor
    """A copy, so that the planes are this kernel's even if it is changed while they are computed."""
    owner: weakref.ref[torch.UntypedStorage] | None = None
    """The memory that held the kernel in the last call: parameters, their views and `detach()` share it."""
    _planes: dict[Convolution, Planes] = field(default_factory=dict)

    def planes(self, conv: Convolution) -> Planes:
        """The kernel at the points of a geometry; those of one geometry are kept."""
        found = self._planes.get(conv)
        if found is None:
            items, channels = self.weight.shape[:2]
            found = Planes(
                self.weight.new_empty(conv.plan.products * items * channels), conv.plan, items, channels
            )
            run(conv.analyse_weight(self.weight, found))
            self._planes = {conv: found}
        return found


_last: Prepared | None = None


def prepared(weight: Tensor) -> Prepared:
    """What was made of the same weights in the last call, or a fresh start."""
    global _last  # noqa: PLW0603
    weight, entry = weight.detach(), _last
    if entry is None or not _same(entry.weight, weight):
        entry = _last = Prepared(weight.clone(memory_format=torch.contiguous_format))
    entry.owner = weakref.ref(weight.untyped_storage(), _forget)
    return entry


def clear() -> None:
    """Forget the weights."""
    global _last  # noqa: PLW0603
    _last = None


def _forget(owner: weakref.ref[torch.UntypedStorage]) -> None:
    entry = _last
    if entry is not None and entry.owner is owner:  # not if another tensor holds the same kernel by now
        clear()


def _same(kept: Tensor, weight: Tensor) -> bool:
    """Equal in shape and in every bit: −0 is not 0 here, and a NaN is itself."""
    if kept.shape != weight.shape:
        return False
    a, b = (tensor.contiguous().view(-1).numpy().view(np.uint32) for tensor in (kept, weight))
    differences: list[bool] = []
    run(Job(lambda start, stop: differences.append(kernels.differ(a, b, start, stop)), a.size))
    return not any(differences)
