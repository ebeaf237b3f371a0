"""Dynamic routing (Sabour, Frosst, Hinton 2017): one function, several backends that give the same numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import get_args

import torch
from jaxtyping import Float
from torch import Tensor

from capsnet._support import dispatch
from capsnet.functional import squash
from capsnet.routing import operators, reference
from capsnet.routing.backends import FAST, auto_is_reference, chunks_of_children
from capsnet.routing.reference import Gradient, softmax_over_parents
from capsnet.routing.registry import check_iterations, register
from capsnet.routing.trace import RoutingTrace, Steps, trace_of

#: Names for `route(backend=…)`, besides "auto".
BACKENDS = ("reference", *FAST)


@register("dynamic")
@dataclass(frozen=True)
class DynamicRouting:
    """Dynamic routing as an object, for `CapsuleLayer(routing=…)`. The options are those of `route`."""

    iterations: int = 3
    leaky: bool = False
    gradient: Gradient = "all"
    backend: str = "auto"

    def __post_init__(self) -> None:
        check_options(self.iterations, self.gradient, self.backend)

    def route(
        self,
        u: Float[Tensor, "batch in_caps in_dim"],
        weight: Float[Tensor, "in_caps in_dim out_caps out_dim"],
        bias: Float[Tensor, "out_caps out_dim"] | None = None,
    ) -> Float[Tensor, "batch out_caps out_dim"]:
        """See `capsnet.routing.route`. Under autocast on a GPU u and weight are rounded to 16 bits."""
        if u.is_cuda and torch.is_autocast_enabled("cuda"):
            # As autocast does for other products: 16-bit operands, sums in float32.
            dtype = torch.get_autocast_dtype("cuda")
            u, weight = u.to(dtype), weight.to(dtype)
        return route(
            u,
            weight,
            self.iterations,
            backend=self.backend,
            bias=bias,
            leaky=self.leaky,
            gradient=self.gradient,
        )

    def trace(
        self,
        u: Float[Tensor, "batch in_caps in_dim"],
        weight: Float[Tensor, "in_caps in_dim out_caps out_dim"],
        bias: Float[Tensor, "out_caps out_dim"] | None = None,
        iterations: int | None = None,
    ) -> RoutingTrace:
        """See `trace_routing`."""
        count = self.iterations if iterations is None else iterations
        return trace_routing(u, weight, count, bias=bias, leaky=self.leaky)


def route(
    u: Float[Tensor, "batch in_caps in_dim"],
    weight: Float[Tensor, "in_caps in_dim out_caps out_dim"],
    iterations: int = 3,
    *,
    backend: str = "auto",
    bias: Float[Tensor, "out_caps out_dim"] | None = None,
    leaky: bool = False,
    gradient: Gradient = "all",
) -> Float[Tensor, "batch out_caps out_dim"]:
    """Route child capsules to parent capsules by agreement (Procedure 1, equations 1 to 3).

    Computed in float32 (float64 for float64 inputs), under autocast too.

    Args:
        u: children, (batch, in_caps, in_dim).
        weight: W_ij, one matrix for each pair of child and parent, (in_caps, in_dim, out_caps, out_dim).
        iterations: r, at least 1. r = 1 is routing without agreement: uniform couplings.
        backend: "auto" picks the fastest exact one for the device; or a name in `BACKENDS`. "auto" means the
            reference while a model is exported or traced, wherever operators are transformed or watched
            (`torch.func`, forward-mode differentiation, dispatch modes, tensor subclasses), for a single sample
            on a CPU, and with `CAPSNET_FAST=0`.
        bias: reading of the authors' code; added to s before squash, (out_caps, out_dim).
        leaky: an extra zero logit in the softmax over parents: a child may go to none of them.
        gradient: "all" lets the gradient flow through every iteration; "last" treats the couplings of the
            last iteration as constants.

    Returns:
        Parents v, (batch, out_caps, out_dim), each of length at most 1 (up to rounding), in the dtype that u and
        weight promote to.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit, iterations < 1, an unknown backend or gradient,
            or a backend that cannot route these tensors here.
    """
    check_options(iterations, gradient, backend)
    _check_tensors(u, weight, bias)
    if backend == "reference" or (backend == "auto" and auto_is_reference(u, weight, bias)):
        return reference.route_in_float32(
            u, weight, bias, iterations=iterations, leaky=leaky, gradient=gradient
        )
    return operators.route_fast(u, weight, bias, iterations, leaky, gradient, backend)


@torch.no_grad()
def trace_routing(
    u: Float[Tensor, "batch in_caps in_dim"],
    weight: Float[Tensor, "in_caps in_dim out_caps out_dim"],
    iterations: int = 3,
    *,
    backend: str = "auto",
    bias: Float[Tensor, "out_caps out_dim"] | None = None,
    leaky: bool = False,
) -> RoutingTrace:
    """Route, and keep logits, couplings and outputs of every iteration. Arguments as for `route`.

    The numbers are those of the backend that `route` uses. No gradient flows through a trace.
    """
    check_options(iterations, "all", backend)
    _check_tensors(u, weight, bias)
    if backend == "reference" or (backend == "auto" and auto_is_reference(u, weight, bias)):
        steps: Steps = []
        reference.route_in_float32(
            u, weight, bias, iterations=iterations, leaky=leaky, gradient="all", steps=steps
        )
        return replace(trace_of(steps), leaky=leaky)

    last, s_all = operators.run_forward(u, weight, bias, iterations, leaky, backend)
    outputs = squash(s_all)
    totals = torch.zeros_like(outputs)  # b^t = û·V^t, V^t the sum of the outputs before iteration t
    totals[1:] = outputs[:-1].cumsum(0)
    outputs[-1] = last
    logits = u.new_empty((iterations, *u.shape[:2], weight.shape[2]), dtype=s_all.dtype)
    for children in chunks_of_children(u, weight):
        with dispatch.without_autocast(u.device):
            votes = torch.einsum(
                "bic,icjd->bijd", u[:, children].to(s_all.dtype), weight[children].to(s_all.dtype)
            )
            logits[:, :, children] = torch.einsum("bijd,tbjd->tbij", votes, totals)
    return RoutingTrace(logits, softmax_over_parents(logits, leaky), outputs, leaky)


def check_options(iterations: int, gradient: str, backend: str) -> None:
    """Refuse options of `route` that are wrong for any tensors.

    Raises:
        ValueError: iterations is not an integer of at least 1, or an unknown backend or gradient.
    """
    check_iterations("route", iterations)
    if gradient not in get_args(Gradient):
        raise ValueError(f"route: gradient {gradient!r} must be one of {', '.join(get_args(Gradient))}")
    if backend not in ("auto", *BACKENDS):
        raise ValueError(f"route: backend {backend!r} is none of {', '.join(('auto', *BACKENDS))}")


def _check_tensors(u: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    if u.ndim != 3 or weight.ndim != 4 or u.shape[1:] != weight.shape[:2]:
        raise ValueError(
            f"route: u {tuple(u.shape)} must be (batch, in_caps, in_dim) and weight {tuple(weight.shape)} "
            "(in_caps, in_dim, out_caps, out_dim)"
        )
    if bias is not None and bias.shape != weight.shape[2:]:
        raise ValueError(f"route: bias {tuple(bias.shape)} must be {tuple(weight.shape[2:])}")
    tensors = [x for x in (u, weight, bias) if x is not None]
    if not all(x.is_floating_point() for x in tensors) or len({x.device for x in tensors}) != 1:
        what = ", ".join(f"{x.dtype} on {x.device}" for x in tensors)
        raise ValueError(f"route: tensors must be floating-point and on one device; they are {what}")
