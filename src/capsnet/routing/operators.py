"""What the backends that never store the votes share: their interface, and the gradient around it.

A fast backend is a module with a text and three functions:

    TAKES
        What it can route, for a person whose tensors it cannot.
    is_available(u) -> bool
        Whether it can route tensors like u (device, dtype, library installed).
    forward(u, weight, bias | None, iterations, leaky) -> (v, s_all)
        v in promote_types(u.dtype, weight.dtype); s_all (iterations, batch, out_caps, out_dim): the sums
        before squash, bias included, of every iteration; float32, or float64 where u or weight is float64.
    backward(dv, u, weight, bias | None, s_all, iterations, leaky, gradient) -> (du, dweight, dbias | None)
        Gradients in the dtypes of u, weight and bias.

u, weight, bias and dv may have any strides, and any floating dtype each; the backend computes in float32 or
better. The outputs are fresh contiguous tensors. A backend runs below autograd and need not care about
autocast: it is off.
"""

# ruff: noqa: ARG001  an operation has as many arguments as it has, and its fake needs few of them

from __future__ import annotations

import importlib
from collections.abc import Iterator
from functools import cache, partial
from typing import Any, Protocol, cast

import torch
from jaxtyping import Float
from torch import Tensor

from capsnet._support import dispatch
from capsnet.routing import reference
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
    """The fast backend of that name, or None where it cannot route u."""
    backend = _module(name)
    return backend if not isinstance(backend, ImportError) and backend.is_available(u) else None


@cache  # Python looks for a module that is missing anew each time, which takes longer than routing one sample
def _module(name: str) -> Backend | ImportError:
    try:
        return cast(Backend, importlib.import_module(_MODULES[name]))
    except ImportError as error:
        return error


def pick(name: str, u: Batched) -> Backend:
    """The backend called `name`; "auto" is the first of `FAST` that can route u.

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
    """float32, or float64 where u or weight is: sums over a thousand children need more than 16 bits."""
    return torch.promote_types(torch.promote_types(u.dtype, weight.dtype), torch.float32)


def chunks_of_children(u: Batched, weight: Weight) -> Iterator[slice]:
    """Slices of children whose votes fit in the budget of the device."""
    votes_of_one = u.shape[0] * weight.shape[2] * weight.shape[3] * compute_dtype(u, weight).itemsize
    step = max(1, (CPU_VOTES if u.device.type == "cpu" else ACCELERATOR_VOTES) // max(1, votes_of_one))
    return (slice(start, start + step) for start in range(0, u.shape[1], step))


def squash_backward(s: Float[Tensor, "*n dim"], dv: Float[Tensor, "*n dim"]) -> Float[Tensor, "*n dim"]:
    """The gradient of squash at s, applied to dv; 0 at s = 0.

    v = s·f(n) with n = ‖s‖ and f = n / (1 + n²), hence ds = f·dv + s·(s·dv)·f′/n, f′ = (1 − n²) / (1 + n²)².
    """
    n = torch.linalg.vector_norm(s, dim=-1, keepdim=True)
    along = (s * dv).sum(-1, keepdim=True) / n.clamp_min(torch.finfo(n.dtype).tiny)
    ds: Tensor = dv * (n / (1 + n * n)) + s * (along * (1 - n * n) / (1 + n * n) ** 2)
    return ds


def route_fast(
    u: Batched,
    weight: Weight,
    bias: Bias | None,
    iterations: int,
    leaky: bool,
    gradient: Gradient,
    backend: str,
) -> Parents:
    """Route with a fast backend, differentiably; eagerly or in a graph that torch.compile captures."""
    if torch.compiler.is_compiling():
        return cast(Tensor, _forward_op(u, weight, bias, iterations, leaky, gradient, backend)[0])
    v: Tensor = _Route.apply(u, weight, bias, iterations, leaky, gradient, backend)  # type: ignore[no-untyped-call]
    return v


def run_forward(
    u: Batched, weight: Weight, bias: Bias | None, iterations: int, leaky: bool, backend: str
) -> tuple[Parents, Sums]:
    """`forward` of the backend called `backend`, autocast off."""
    with dispatch.without_autocast(u.device):
        return pick(backend, u).forward(u, weight, bias, iterations, leaky)


def _run_backward(backend: str, dv: Tensor, u: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor | None]:
    with dispatch.without_autocast(u.device):
        return pick(backend, u).backward(dv, u, *rest)


class _Route(torch.autograd.Function):
    """The eager wrapper: a custom operator costs tens of microseconds more per call."""

    @staticmethod
    def forward(
        ctx: Any,
        u: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        iterations: int,
        leaky: bool,
        gradient: Gradient,
        backend: str,
    ) -> Tensor:
        v, s_all = run_forward(u, weight, bias, iterations, leaky, backend)
        ctx.save_for_backward(u, weight, bias, s_all)
        ctx.options = (iterations, leaky, gradient, backend)
        return v

    @staticmethod
    def backward(ctx: Any, dv: Tensor) -> tuple[Tensor | None, ...]:
        u, weight, bias, s_all = ctx.saved_tensors
        iterations, leaky, gradient, backend = ctx.options
        if dispatch.backward_needs_operators(dv):  # the reference's, then
            plain = partial(_reference, iterations=iterations, leaky=leaky, gradient=gradient)
            grads = dispatch.plain_gradients(plain, (u, weight, bias), dv, ctx.needs_input_grad[:3])
            return (*grads, None, None, None, None)
        du, dweight, dbias = _run_backward(backend, dv, u, weight, bias, s_all, iterations, leaky, gradient)
        return du, dweight, dbias, None, None, None, None


def _reference(
    u: Batched, weight: Weight, bias: Bias | None, *, iterations: int, leaky: bool, gradient: Gradient
) -> Parents:
    with dispatch.without_autocast(u.device):
        return reference.route_in_float32(u, weight, iterations, bias=bias, leaky=leaky, gradient=gradient)


@torch.library.custom_op("capsnet::route", mutates_args=())
def _forward_op(
    u: Tensor, weight: Tensor, bias: Tensor | None, iterations: int, leaky: bool, gradient: str, backend: str
) -> tuple[Tensor, Tensor]:
    return run_forward(u, weight, bias, iterations, leaky, backend)


@_forward_op.register_fake
def _(
    u: Tensor, weight: Tensor, bias: Tensor | None, iterations: int, leaky: bool, gradient: str, backend: str
) -> tuple[Tensor, Tensor]:
    size = (u.shape[0], *weight.shape[2:])
    v = u.new_empty(size, dtype=torch.promote_types(u.dtype, weight.dtype))
    return v, u.new_empty((iterations, *size), dtype=compute_dtype(u, weight))


@torch.library.custom_op("capsnet::route_backward", mutates_args=())
def _backward_op(
    dv: Tensor,
    u: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    s_all: Tensor,
    iterations: int,
    leaky: bool,
    gradient: str,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    du, dweight, dbias = _run_backward(backend, dv, u, weight, bias, s_all, iterations, leaky, gradient)
    return du, dweight, dv.new_empty(0) if dbias is None else dbias  # an operator cannot return None


@_backward_op.register_fake
def _(
    dv: Tensor,
    u: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    s_all: Tensor,
    iterations: int,
    leaky: bool,
    gradient: str,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    dbias = dv.new_empty(0) if bias is None else bias.new_empty(bias.shape)
    return u.new_empty(u.shape), weight.new_empty(weight.shape), dbias


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    u, weight, bias, *options = inputs
    ctx.save_for_backward(u, weight, bias, output[1])
    ctx.options = options


def _op_backward(ctx: Any, dv: Tensor, _ds_all: Tensor | None) -> tuple[Tensor | None, ...]:
    u, weight, bias, s_all = ctx.saved_tensors
    du, dweight, dbias = _backward_op(dv, u, weight, bias, s_all, *ctx.options)
    return du, dweight, None if bias is None else dbias, None, None, None, None


_forward_op.register_autograd(_op_backward, setup_context=_setup_context)
