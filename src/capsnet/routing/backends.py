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
from collections.abc import Iterator
from functools import cache
from typing import Protocol, cast

import torch
from jaxtyping import Float
from torch import Tensor

from capsnet.routing.reference import Gradient

Batched = Float[Tensor, "batch in_caps in_dim"]
Weight = Float[Tensor, "in_caps in_dim out_caps out_dim"]
Bias = Float[Tensor, "out_caps out_dim"]
Parents = Float[Tensor, "batch out_caps out_dim"]
Sums = Float[Tensor, "iterations batch out_caps out_dim"]

#: The fast backends and their modules; the first available one is picked.
_MODULES = {
    "triton": "capsnet.routing.cuda.backend",
    "cpu": "capsnet.routing.cpu.backend",
    "chunked": "capsnet.routing.chunked",
}
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


def load(name: str, u: Batched) -> Backend | None:
    """Return the fast backend of that name, or None where it cannot route u."""
    backend = _module(name)
    return backend if not isinstance(backend, ImportError) and backend.is_available(u) else None


@cache  # Python searches for a missing module at every import, which takes longer than routing one sample
def _module(name: str) -> Backend | ImportError:
    try:
        return cast(Backend, importlib.import_module(_MODULES[name]))
    except ImportError as error:
        return error


def pick(name: str, u: Batched) -> Backend:
    """Return the backend called `name`; "auto" is the first of `FAST` that can route u.

    Raises:
        ValueError: the named backend cannot route u here.
    """
    for candidate in FAST if name == "auto" else (name,):
        backend = load(candidate, u)
        if backend is not None:
            return backend
    backend_or_error = _module("chunked" if name == "auto" else name)
    why = (
        backend_or_error
        if isinstance(backend_or_error, ImportError)
        else f"it takes {backend_or_error.TAKES}"
    )
    raise ValueError(f"route: backend {name!r} cannot route {u.dtype} on {u.device} here: {why}")


def compute_dtype(u: Tensor, weight: Tensor) -> torch.dtype:
    """Return float32, or float64 where u or weight is: sums over a thousand children need more than 16 bits."""
    return torch.promote_types(torch.promote_types(u.dtype, weight.dtype), torch.float32)


def chunks_of_children(u: Batched, weight: Weight) -> Iterator[slice]:
    """Yield slices of children whose votes fit in the budget of the device."""
    votes_of_one = u.shape[0] * weight.shape[2] * weight.shape[3] * compute_dtype(u, weight).itemsize
    step = max(1, (CPU_VOTES if u.device.type == "cpu" else ACCELERATOR_VOTES) // max(1, votes_of_one))
    return (slice(start, start + step) for start in range(0, u.shape[1], step))
