"""The backends of `agree` that never store the votes, and a pass with one of them as a differentiable operation.

A backend is a module with a text and three functions:

    TAKES
        What it can route, for the message to a user whose tensors it cannot.
    is_available(u) -> bool
        Whether it can route tensors like u (device, dtype, library installed).
    forward(inputs, leaky, wants_log_sums) -> tuple of tensors
        As `agree_reference.forward`.
    backward(gradients, inputs, leaky, wants_log_sums, place) -> the gradients of all inputs but the centre
        None for those that are None. place: the gradients of u and W so far, to add to in place and to return; or None.

The inputs have one dtype, float32 or float64, any strides, and autocast is off. The results are fresh contiguous
tensors, and so is place.
"""

# ruff: noqa: ARG001  an operation and its fake have the same arguments, and the fake needs few of them

from __future__ import annotations

from functools import partial
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from capsnet._support import dispatch
from capsnet.routing import agree_reference
from capsnet.routing.agree_reference import Inputs
from capsnet.routing.agree_sums import Gradients, shared_gradients
from capsnet.routing.backends import pick_module

Optional = Tensor | None

#: The fast backends and their modules.
_MODULES = {
    "triton": "capsnet.routing.cuda.agree_backend",
    "cpu": "capsnet.routing.cpu.agree_backend",
    "chunked": "capsnet.routing.agree_chunked",
}
#: As `backends.FAST`.
FAST = tuple(_MODULES)


class Backend(Protocol):
    """See the top of this module."""

    TAKES: str

    def is_available(self, u: Tensor) -> bool: ...  # noqa: D102

    def forward(self, given: Inputs, leaky: bool, wants_log_sums: bool) -> tuple[Tensor, ...]: ...  # noqa: D102

    def backward(  # noqa: D102
        self,
        gradients: tuple[Tensor, ...],
        given: Inputs,
        leaky: bool,
        wants_log_sums: bool,
        place: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Optional, ...]: ...


def pick(name: str, u: Tensor) -> Backend:
    """Return the backend called `name`; "auto" is the first of `FAST` that can route u.

    Raises:
        ValueError: the named backend cannot route u here.
    """
    return cast(Backend, pick_module("agree", _MODULES, FAST if name == "auto" else (name,), u))


def run(given: Inputs, leaky: bool, wants_log_sums: bool, backend: str) -> tuple[Tensor, ...]:
    """Run a pass with a fast backend, differentiably."""
    if torch.compiler.is_compiling():
        return tuple(_forward_op(*given, leaky, wants_log_sums, backend))
    options = (shared_gradients(given.u, given.weight), leaky, wants_log_sums, backend)
    found: tuple[Tensor, ...] = _Pass.apply(*options, *given)  # type: ignore[no-untyped-call]
    return found


class _Pass(torch.autograd.Function):
    """The eager operation."""

    @staticmethod
    def forward(
        ctx: Any,
        shared: Gradients | None,
        leaky: bool,
        wants_log_sums: bool,
        backend: str,
        *tensors: Optional,
    ) -> tuple[Tensor, ...]:
        ctx.save_for_backward(*tensors)
        ctx.options = (leaky, wants_log_sums, backend)
        ctx.shared = shared
        return _run_forward(Inputs(*tensors), leaky, wants_log_sums, backend)  # type: ignore[arg-type]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Optional, ...]:
        leaky, wants_log_sums, backend = ctx.options
        tensors, shared = ctx.saved_tensors, ctx.shared
        if any(dispatch.backward_needs_operators(x) for x in gradients):  # those of the reference
            plain = partial(_plain, leaky=leaky, wants_log_sums=wants_log_sums)
            found = dispatch.plain_gradients(plain, tensors, gradients, ctx.needs_input_grad[4:])
            return None, None, None, None, *found
        place = None if shared is None else shared.place()
        options = (leaky, wants_log_sums, backend, place)
        du, dweight, *others = _run_backward(gradients, Inputs(*tensors), *options)
        if shared is not None:
            assert du is not None
            assert dweight is not None
            shared.of, du, dweight = (du, dweight), None, None
        return None, None, None, None, du, dweight, *others


def _plain(*tensors: Any, leaky: bool, wants_log_sums: bool) -> tuple[Tensor, ...]:
    return agree_reference.forward(Inputs(*tensors), leaky, wants_log_sums)


def _run_forward(given: Inputs, leaky: bool, wants_log_sums: bool, backend: str) -> tuple[Tensor, ...]:
    with dispatch.without_autocast(given.u.device):
        return pick(backend, given.u).forward(given, leaky, wants_log_sums)


def _run_backward(
    gradients: tuple[Tensor, ...],
    given: Inputs,
    leaky: bool,
    wants_log_sums: bool,
    backend: str,
    place: tuple[Tensor, Tensor] | None = None,
) -> tuple[Optional, ...]:
    with dispatch.without_autocast(given.u.device):
        return *pick(backend, given.u).backward(gradients, given, leaky, wants_log_sums, place), None


@torch.library.custom_op("capsnet::agree", mutates_args=())
def _forward_op(
    u: Tensor,
    weight: Tensor,
    query: Tensor | None,
    precision: Tensor | None,
    offset: Tensor | None,
    activations: Tensor | None,
    normaliser: Tensor | None,
    centre: Tensor | None,
    leaky: bool,
    wants_log_sums: bool,
    backend: str,
) -> list[Tensor]:
    given = Inputs(u, weight, query, precision, offset, activations, normaliser, centre)
    return list(_run_forward(given, leaky, wants_log_sums, backend))


@_forward_op.register_fake
def _(
    u: Tensor,
    weight: Tensor,
    query: Tensor | None,
    precision: Tensor | None,
    offset: Tensor | None,
    activations: Tensor | None,
    normaliser: Tensor | None,
    centre: Tensor | None,
    leaky: bool,
    wants_log_sums: bool,
    backend: str,
) -> list[Tensor]:
    if wants_log_sums:
        return [u.new_empty(u.shape[:2])]
    size = (u.shape[0], weight.shape[2])
    rows = u.shape[2] if u.ndim == 4 else 1
    moments = [u.new_empty((*size, rows * weight.shape[3])) for _ in range(1 if precision is None else 2)]
    return [u.new_empty(size), *moments]


@torch.library.custom_op("capsnet::agree_backward", mutates_args=())
def _backward_op(
    gradients: list[Tensor],
    u: Tensor,
    weight: Tensor,
    query: Tensor | None,
    precision: Tensor | None,
    offset: Tensor | None,
    activations: Tensor | None,
    normaliser: Tensor | None,
    centre: Tensor | None,
    leaky: bool,
    wants_log_sums: bool,
    backend: str,
) -> list[Tensor]:
    given = Inputs(u, weight, query, precision, offset, activations, normaliser, centre)
    found = _run_backward(tuple(gradients), given, leaky, wants_log_sums, backend)
    return [x for x in found if x is not None]  # an operator cannot return None


@_backward_op.register_fake
def _(
    gradients: list[Tensor],
    u: Tensor,
    weight: Tensor,
    query: Tensor | None,
    precision: Tensor | None,
    offset: Tensor | None,
    activations: Tensor | None,
    normaliser: Tensor | None,
    centre: Tensor | None,
    leaky: bool,
    wants_log_sums: bool,
    backend: str,
) -> list[Tensor]:
    tensors = (u, weight, query, precision, offset, activations, normaliser)
    return [x.new_empty(x.shape) for x in tensors if x is not None]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    *tensors, leaky, wants_log_sums, backend = inputs
    ctx.save_for_backward(*tensors)
    ctx.options = (leaky, wants_log_sums, backend)


def _op_backward(ctx: Any, gradients: list[Tensor]) -> tuple[Optional, ...]:
    tensors = ctx.saved_tensors
    found = iter(_backward_op(gradients, *tensors, *ctx.options))
    *most, _centre = tensors
    return (*(None if x is None else next(found) for x in most), None, None, None, None)


_forward_op.register_autograd(_op_backward, setup_context=_setup_context)
