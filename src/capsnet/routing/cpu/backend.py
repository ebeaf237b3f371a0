"""Route on a CPU without storing the votes: Numba kernels, several threads, float32.

Every sum has a fixed order, with any number of threads: the children are split into `PARTS` parts, each part
is summed on its own, and the parts are added in order. A sample's outputs, and the gradient of its children,
do not depend on the other samples in its batch, to the last bit.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from capsnet._support import threads
from capsnet.routing import chunked
from capsnet.routing.backends import Batched, Bias, Parents, Sums, Weight
from capsnet.routing.reference import Gradient

#: Parts of the children that are summed on their own: work for 16 threads.
PARTS = 16
#: Samples routed at a time: their sums and directions fit in the second-level cache.
_SAMPLES = 256
#: Multiplications of one task at least, to compute its votes once: some 0.1 ms.
TASK = 2**21
#: Samples that travel together, `capsnet.routing.cpu.simd.LANES`.
LANES = 16
#: For everything the kernels write to: the program may have other default dtypes and devices.
_FLOATS: Any = {"dtype": torch.float32, "device": "cpu"}

TAKES = "floats of 16 or 32 bits on a CPU, with Numba installed"


def is_available(u: Batched) -> bool:
    """Return whether u can be routed here: on a CPU, in float32 or less, with Numba installed."""
    return (
        u.device.type == "cpu"
        and u.is_floating_point()
        and u.dtype != torch.float64
        and _kernels() is not None
    )


def forward(
    u: Batched, weight: Weight, bias: Bias | None, iterations: int, leaky: bool
) -> tuple[Parents, Sums]:
    """Return the parents v and the sums s of every iteration; see `capsnet.routing.backends`."""
    if _is_for_chunked(u, weight):
        return chunked.forward(u, weight, bias, iterations, leaky)
    kernels = _kernels()
    _, _, parents, dim = weight.shape
    u_, b = _numpy(u), _numpy(u.new_empty(0) if bias is None else bias).reshape(-1)
    v = torch.empty((len(u), parents, dim), **_FLOATS)
    s_all = torch.empty((iterations, *v.shape), **_FLOATS)
    v_, s_ = v.numpy(), s_all.numpy()
    for group in _groups(len(u)):
        passes = _Passes(u_[group], _numpy(weight), leaky)
        V, work = _in_lanes(2, len(u_[group]), parents * dim)
        V[:] = 0
        for t in range(iterations):
            sums = passes.sum(V[None], uniform=t == 0)
            coupling = 1 / (parents + leaky) if t == 0 else 1.0
            kernels.finish_iteration(sums, coupling, b, V, work, s_[t, group], v_[group])
    return v.to(torch.promote_types(u.dtype, weight.dtype)), s_all


def backward(
    dv: Parents,
    u: Batched,
    weight: Weight,
    bias: Bias | None,
    s_all: Sums,
    iterations: int,
    leaky: bool,
    gradient: Gradient,
) -> tuple[Batched, Weight, Bias | None]:
    """Return the gradients of u, W and the bias, in the order of `chunked.backward`."""
    if _is_for_chunked(u, weight):
        return chunked.backward(dv, u, weight, bias, s_all, iterations, leaky, gradient)
    kernels = _kernels()
    _, _, parents, dim = weight.shape
    u_, s_, dv_ = _numpy(u), _numpy(s_all), _numpy(dv)
    du, dweight = torch.empty(u.shape, **_FLOATS), torch.empty(weight.shape, **_FLOATS)
    du_, dw = du.numpy(), dweight.numpy().reshape(-1)
    dbias = torch.zeros(parents * dim, **_FLOATS)
    for group in _groups(len(u)):
        passes = _Passes(u_[group], _numpy(weight), leaky)
        size = len(u_[group]), parents * dim
        s, directions = _in_lanes(iterations, *size), _in_lanes(2 * iterations, *size)
        G, work = _in_lanes(2, *size)
        ds = directions[1::2]
        kernels.start_backward(s_[:, group], dv_[group], s, directions, work)
        if gradient == "all":
            G[:] = 0
            for t in range(iterations - 1, 0, -1):
                sums = passes.sum(directions[2 * t : 2 * t + 2])
                kernels.finish_backward(sums, G, s[t - 1], ds[t - 1], dim)
        else:
            ds[:-1] = 0
        passes.input_gradients(directions, gradient == "all", group.start == 0, du_[group], dw)
        dbias += torch.from_numpy(ds).reshape(-1, parents * dim, LANES).sum((0, 2))
    db = None if bias is None else dbias.reshape(bias.shape).to(bias.dtype)
    return du.to(u.dtype), dweight.to(weight.dtype), db


class _Passes:
    """Passes over the children of some samples, which travel in groups of sixteen."""

    def __init__(self, u: Any, weight: Any, leaky: bool) -> None:
        self.u, self.w, self.leaky = u, weight.reshape(-1), leaky
        self.sizes = weight.shape[2:]
        #: The children's parts: the same for any batch and number of threads.
        self.bounds = np.arange(PARTS + 1) * len(weight) // PARTS
        self.sums = _in_lanes(PARTS, len(u), weight[0, 0].size)

    def sum(self, directions: Any, uniform: bool = False) -> Any:
        """Return the sums of each part; see `capsnet.routing.cpu.kernels.sum_over_children`."""
        fixed = (self.u, self.w, *self.sizes, directions, uniform, self.leaky, self.bounds)
        tasks = ((*fixed, *parts, self.sums) for parts in self._tasks())
        threads.for_each(_kernels().sum_over_children, tasks)
        return self.sums

    def input_gradients(
        self, directions: Any, through_couplings: bool, fresh: bool, du: Any, dw: Any
    ) -> None:
        """See `capsnet.routing.cpu.kernels.input_gradients`."""
        fixed = (self.u, self.w, *self.sizes, directions, self.leaky, through_couplings, fresh)
        tasks = ((*fixed, self.bounds[lo], self.bounds[hi], du, dw) for lo, hi in self._tasks())
        threads.for_each(_kernels().input_gradients, tasks)

    def _tasks(self) -> list[tuple[int, int]]:
        """First and last part of each task."""
        lanes = -(-len(self.u) // LANES) * LANES
        tasks = min(PARTS, max(1, lanes * self.w.size // TASK))
        return list(pairwise(PARTS * n // tasks for n in range(tasks + 1)))


@cache
def _kernels() -> Any:
    """Return the compiled kernels, or None without Numba."""
    with announcing_compilation() as has_numba:
        if not has_numba:
            return None
        from capsnet.routing.cpu import kernels
    return kernels


@contextmanager
def announcing_compilation() -> Iterator[bool]:
    """Print one line if kernels are compiled in the block. Yields whether Numba is installed."""
    try:
        from numba.core import event
    except ImportError:
        yield False
        return

    class Announce(event.Listener):  # type: ignore[misc]
        announced = False

        def on_start(self, event: Any) -> None:  # noqa: ARG002
            if not self.announced:
                self.announced = True
                print(
                    "capsnet: compiling the routing kernels for this CPU (once, some 10 s) …", file=sys.stderr
                )

        def on_end(self, event: Any) -> None:
            """Required by Numba."""

    with event.install_listener("numba:compile", Announce()):
        yield True


def _is_for_chunked(u: Batched, weight: Weight) -> bool:
    """Return whether the chunked backend routes these: float64 weights, or empty tensors."""
    return weight.dtype == torch.float64 or 0 in u.shape or 0 in weight.shape


def _numpy(x: Float[Tensor, "..."]) -> Any:
    return x.detach().float().numpy()


def _groups(samples: int) -> list[slice]:
    return [slice(at, min(at + _SAMPLES, samples)) for at in range(0, samples, _SAMPLES)]


def _in_lanes(copies: int, samples: int, numbers: int) -> Any:
    """Return uninitialised memory for `copies` times `numbers` numbers of each sample, in lanes."""
    return torch.empty((copies, -(-samples // LANES) * LANES * numbers), **_FLOATS).numpy()
