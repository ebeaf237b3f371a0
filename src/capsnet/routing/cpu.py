"""Routing on a CPU that never stores the votes: Numba kernels, several threads, float32.

Every sum runs in a fixed order, whatever the number of threads: children are split into `_PARTS` parts, each part
is summed on its own, and the parts are added up in order. A sample's outputs, and the gradient of its children,
do not depend on the other samples in its batch, to the last bit.
"""

from __future__ import annotations

import math
import sys
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from capsnet.routing import chunked, parallel
from capsnet.routing.autograd import Batched, Bias, Parents, Sums, Weight
from capsnet.routing.reference import Gradient

#: Parts of the children that are summed on their own: work for 16 threads even for a single sample.
_PARTS = 16
#: Samples at a time: what they need besides their children fits in the second-level cache.
_SAMPLES = 256
#: Multiplications, for all votes once, that are worth a task of their own: some 0.1 ms.
_TASK = 2**21
#: Votes of a sample that is alone are kept if there are at most so many: 1 MiB, in the second-level cache.
_KEPT_VOTES = 2**18
#: Samples that travel together, `capsnet.routing.simd.LANES`.
_LANES = 16
#: Everything the kernels write to: the program may have other defaults.
_FLOATS: Any = {"dtype": torch.float32, "device": "cpu"}

TAKES = "floats of 16 or 32 bits on a CPU, with Numba installed"


def is_available(u: Batched) -> bool:
    """Whether it can route u: on a CPU, in float32 or less, with Numba."""
    return (
        u.device.type == "cpu"
        and u.is_floating_point()
        and u.dtype != torch.float64
        and _kernels() is not None
    )


def forward(
    u: Batched, weight: Weight, bias: Bias | None, iterations: int, leaky: bool
) -> tuple[Parents, Sums]:
    """Parents v and the sums s of every iteration; see `capsnet.routing.autograd`."""
    if _is_for_chunked(u, weight):
        return chunked.forward(u, weight, bias, iterations, leaky)
    kernels = _kernels()
    _, _, parents, dim = weight.shape
    u_, w, b = (
        _numpy(u),
        _numpy(weight).reshape(-1),
        _numpy(u.new_empty(0) if bias is None else bias).reshape(-1),
    )
    bounds, tasks = _divide(len(u), weight)
    v = torch.empty((len(u), parents, dim), **_FLOATS)
    s_all = torch.empty((iterations, *v.shape), **_FLOATS)
    v_, s_ = v.numpy(), s_all.numpy()
    if len(u) == 1 and u.shape[1] * v.numel() <= _KEPT_VOTES:
        _forward_one(u_, w, b, bounds, leaky, s_, v_)
        return v.to(torch.promote_types(u.dtype, weight.dtype)), s_all
    for group in _groups(len(u)):
        partial = _in_lanes(u_[group], v, _PARTS)
        V, (work,) = _in_lanes(u_[group], v, 1), _in_lanes(u_[group], v, 1)
        V[:] = 0
        for t in range(iterations):
            uniform = t == 0
            fixed = (u_[group], w, parents, dim, V, uniform, leaky, bounds)
            parallel.for_each(kernels.sum_over_children, ((*fixed, *parts, partial) for parts in tasks))
            coupling = 1 / (parents + leaky) if uniform else 1.0
            kernels.finish_iteration(partial, coupling, b, V[0], work, s_[t, group], v_[group])
    return v.to(torch.promote_types(u.dtype, weight.dtype)), s_all


def _forward_one(u: Any, w: Any, bias: Any, bounds: Any, leaky: bool, s_all: Any, v: Any) -> None:
    """`forward` of a single sample whose votes stay in the cache; see `single`. Overwrites s_all and v.

    On one thread: waking another takes as long as half the work.
    """
    kernels = _kernels()
    _, parents, dim = v.shape
    votes = torch.empty((u.shape[1], parents * dim), **_FLOATS).numpy()
    partial = torch.zeros((_PARTS, parents * dim * _LANES), **_FLOATS).numpy()
    V, work = _in_lanes(u, v, 2)
    V[:] = 0
    children = np.ascontiguousarray(u[0])
    kernels.first_of_one(children, w, bounds, votes, partial)
    kernels.finish_iteration(partial, 1 / (parents + leaky), bias, V, work, s_all[0], v)
    for s in s_all[1:]:
        kernels.next_of_one(votes, V, parents, dim, leaky, bounds, partial)
        kernels.finish_iteration(partial, 1.0, bias, V, work, s, v)


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
    """Gradients of u, W and the bias; see `capsnet.routing.autograd`, and `chunked.backward` for the order."""
    if _is_for_chunked(u, weight):
        return chunked.backward(dv, u, weight, bias, s_all, iterations, leaky, gradient)
    kernels = _kernels()
    _, _, parents, dim = weight.shape
    u_, w, s_, dv_ = _numpy(u), _numpy(weight).reshape(-1), _numpy(s_all), _numpy(dv)
    du, dweight = torch.empty(u.shape, **_FLOATS), torch.empty(weight.shape, **_FLOATS)
    du_, dw = du.numpy(), dweight.numpy().reshape(-1)
    dbias = torch.zeros(parents * dim, **_FLOATS)
    bounds, tasks = _divide(
        -(-len(u) // _LANES) * _LANES, weight
    )  # a sample that is alone costs a block's time
    for group in _groups(len(u)):
        x = u_[group]
        s, directions = _in_lanes(x, dv, iterations), _in_lanes(x, dv, 2 * iterations)
        G, work = _in_lanes(x, dv, 2)
        ds = directions[1::2]
        kernels.start_backward(s_[:, group], dv_[group], s, directions, work)
        if gradient == "all":
            G[:] = 0
            partial = _in_lanes(x, dv, _PARTS)
            for t in range(iterations - 1, 0, -1):
                fixed = (x, w, parents, dim, directions[2 * t : 2 * t + 2], False, leaky, bounds)
                parallel.for_each(kernels.sum_over_children, ((*fixed, *parts, partial) for parts in tasks))
                kernels.finish_backward(partial, G, s[t - 1], ds[t - 1], dim)
        else:
            ds[:-1] = 0
        overwrite = group.start == 0
        options = (x, w, parents, dim, directions, leaky, gradient == "all", overwrite)
        children = ((bounds[lo], bounds[hi]) for lo, hi in tasks)
        parallel.for_each(kernels.input_gradients, ((*options, *some, du_[group], dw) for some in children))
        dbias += torch.from_numpy(ds).reshape(-1, parents * dim, _LANES).sum((0, 2))
    db = None if bias is None else dbias.reshape(bias.shape).to(bias.dtype)
    return du.to(u.dtype), dweight.to(weight.dtype), db


@cache
def _kernels() -> Any:
    """The compiled kernels, or None where there is no Numba. Says so if they have to be compiled now."""
    try:
        from numba.core import event
    except ImportError:
        return None

    class Announce(event.Listener):  # type: ignore[misc]
        told = False

        def on_start(self, event: Any) -> None:  # noqa: ARG002
            if not self.told:
                self.told = True
                print(
                    "capsnet: compiling the routing kernels for this CPU (once, some 10 s) …", file=sys.stderr
                )

        def on_end(self, event: Any) -> None:
            """Nothing to say."""

    with event.install_listener("numba:compile", Announce()):
        from capsnet.routing import kernels
    return kernels


def _is_for_chunked(u: Batched, weight: Weight) -> bool:
    """float64 weights, or nothing to route: not worth kernels."""
    return weight.dtype == torch.float64 or 0 in u.shape or 0 in weight.shape


def _numpy(x: Float[Tensor, "..."]) -> Any:
    return x.detach().float().numpy()


def _groups(samples: int) -> list[slice]:
    return [slice(at, min(at + _SAMPLES, samples)) for at in range(0, samples, _SAMPLES)]


def _divide(samples: int, weight: Weight) -> tuple[Any, list[tuple[int, int]]]:
    """The children's parts, the same for any batch and number of threads; and which of them make up a task."""
    bounds = np.arange(_PARTS + 1) * len(weight) // _PARTS
    tasks = min(_PARTS, max(1, samples * weight.numel() // _TASK))
    return bounds, list(pairwise(_PARTS * n // tasks for n in range(tasks + 1)))


def _in_lanes(x: Any, parents: Parents | Any, copies: int) -> Any:
    """Uninitialised room for `copies` times the parents' numbers of the samples x, in lanes."""
    lanes = -(-len(x) // _LANES) * _LANES
    return torch.empty((copies, lanes * math.prod(parents.shape[1:])), **_FLOATS).numpy()
