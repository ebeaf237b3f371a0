"""The backends that never store the votes: what each of them must provide, and how one is chosen.

A backend is a module with a text and three functions:

    TAKES
        What it can route, for the message to a user whose tensors it cannot.
    is_available(u) -> bool
        Whether it can route tensors like u (device, dtype, library installed).
    forward(u, weight, bias | None, iterations, leaky) -> (v, s_all)
        v in promote_types(u.dtype, weight.dtype); s_all (iterations, batch, out_caps, out_dim): the sums
        before squash, bias included, of every iteration; float32, or float64 where u or weight is float64.
    backward(dv, u, weight, bias | None, s_all, iterations, leaky, gradient) -> (du, dweight, dbias | None)
        Gradients in the dtypes of u, weight and bias.

u, weight, bias and dv may have any strides, and any floating dtype each; the backend computes in float32 or
better. The outputs are fresh contiguous tensors. A backend runs below autograd, with autocast off.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Protocol, cast

import torch
from jaxtyping import Float
from torch import Tensor

from capsnet._support import dispatch
from capsnet.routing.reference import Gradient

Batched = Float[Tensor, "batch in_caps in_dim"]
Weight = Float[Tensor, "in_caps in_dim out_caps out_dim"]
Bias = Float[Tensor, "out_caps out_dim"]
Parents = Float[Tensor, "batch out_caps out_dim"]
Sums = Float[Tensor, "iterations batch out_caps out_dim"]

#: The fast backends and their modules.
_MODULES = {
    "triton": "capsnet.routing.cuda.backend",
    "cpu": "capsnet.routing.cpu.backend",
    "chunked": "capsnet.routing.chunked",
}
#: Their names, in the order in which "auto" tries them. The GPU kit takes out those that fail on its machine.
FAST = tuple(_MODULES)

#: Bytes of votes that the chunked backend holds: what stays in a CPU's cache, and what fills an accelerator.
CPU_VOTES, ACCELERATOR_VOTES = 2**20, 2**26


class Backend(Protocol):
    """See the top of this module."""

    TAKES: str

    def is_available(self, u: Batched) -> bool: ...  # noqa: D102

    def forward(  # noqa: D102
        self, u: Batched, weight: Weight, bias: Bias | None, iterations: int, leaky: bool
    ) -> tuple[Parents, Sums]: ...

    def backward(  # noqa: D102
        self,
        dv: Parents,
        u: Batched,
        weight: Weight,
        bias: Bias | None,
        s_all: Sums,
        iterations: int,
        leaky: bool,
        gradient: Gradient,
    ) -> tuple[Batched, Weight, Bias | None]: ...


def pick(name: str, u: Batched) -> Backend:
    """Return the backend called `name`; "auto" is the first of `FAST` that can route u.

    Raises:
        ValueError: the named backend cannot route u here.
    """
    return cast(Backend, pick_module("route", _MODULES, FAST if name == "auto" else (name,), u))


def pick_module(owner: str, modules: Mapping[str, str], names: Sequence[str], u: Tensor) -> Any:
    """Return the first of some backends that can route u.

    Args:
        owner: the function that asks, for the message of an error.
        modules: module of each backend, by name.
        names: the backends to try, in this order.
        u: the children.

    Raises:
        ValueError: none of them can route u here.
    """
    for name in names:
        backend = _imported(modules[name])
        if not isinstance(backend, ImportError) and backend.is_available(u):
            return backend
    why = backend if isinstance(backend, ImportError) else f"it takes {backend.TAKES}"
    raise ValueError(f"{owner}: backend {name!r} cannot route {u.dtype} on {u.device} here: {why}")


@cache  # Python searches for a missing module at every import, which takes longer than routing one sample
def _imported(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        return error


def auto_is_reference(u: Tensor, *others: Tensor | None) -> bool:
    """Return whether "auto" means the reference: fast paths are off, or operators are traced, transformed or watched.

    Also for one sample on a CPU: the kernels would leave 15 of their 16 lanes empty, and its votes are smaller than W.
    """
    if torch.compiler.is_compiling():
        return not dispatch.enabled() or torch.compiler.is_exporting()
    if len(u) == 1 and u.device.type == "cpu":
        return True
    return not dispatch.may_stand_in(*(x for x in (u, *others) if x is not None))


def compute_dtype(u: Tensor, weight: Tensor) -> torch.dtype:
    """Return float32, or float64 where u or weight is: sums over a thousand children need more than 16 bits."""
    return torch.promote_types(torch.promote_types(u.dtype, weight.dtype), torch.float32)


def chunks_of_children(u: Batched, weight: Weight) -> Iterator[slice]:
    """Yield slices of children whose votes fit in the budget of the device."""
    votes_of_one = u.shape[0] * weight.shape[2] * weight.shape[3] * compute_dtype(u, weight).itemsize
    step = max(1, (CPU_VOTES if u.device.type == "cpu" else ACCELERATOR_VOTES) // max(1, votes_of_one))
    return (slice(start, start + step) for start in range(0, u.shape[1], step))
