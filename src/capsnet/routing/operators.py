"""Routing with a fast backend as one differentiable operation, eagerly and in graphs that `torch.compile` captures."""

# ruff: noqa: ARG001  an operation and its fake have the same arguments, and the fake needs few of them

from __future__ import annotations

from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

from capsnet._support import dispatch
from capsnet.routing import reference
from capsnet.routing.backends import Batched, Bias, Parents, Sums, Weight, compute_dtype, pick
from capsnet.routing.reference import Gradient


def route_fast(
    u: Batched,
    weight: Weight,
    bias: Bias | None,
    iterations: int,
    leaky: bool,
    gradient: Gradient,
    backend: str,
) -> Parents:
    """Route with a fast backend, differentiably."""
    if torch.compiler.is_compiling():
        return cast(Tensor, _forward_op(u, weight, bias, iterations, leaky, gradient, backend)[0])
    v: Tensor = _Route.apply(u, weight, bias, iterations, leaky, gradient, backend)  # type: ignore[no-untyped-call]
    return v


def run_forward(
    u: Batched, weight: Weight, bias: Bias | None, iterations: int, leaky: bool, backend: str
) -> tuple[Parents, Sums]:
    """Call `forward` of the backend called `backend`, with autocast off."""
    with dispatch.without_autocast(u.device):
        return pick(backend, u).forward(u, weight, bias, iterations, leaky)


def _run_backward(backend: str, dv: Tensor, u: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor | None]:
    with dispatch.without_autocast(u.device):
        return pick(backend, u).backward(dv, u, *rest)


class _Route(torch.autograd.Function):
    """The eager operation. A custom operator costs 0.13 ms more, which is a third of a tiny layer's time."""

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
        if dispatch.backward_needs_operators(dv):  # those of the reference
            plain = partial(reference.route_in_float32, iterations=iterations, leaky=leaky, gradient=gradient)
            grads = dispatch.plain_gradients(plain, (u, weight, bias), dv, ctx.needs_input_grad[:3])
            return (*grads, None, None, None, None)
        du, dweight, dbias = _run_backward(backend, dv, u, weight, bias, s_all, iterations, leaky, gradient)
        return du, dweight, dbias, None, None, None, None


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
