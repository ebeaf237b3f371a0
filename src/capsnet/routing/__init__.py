"""Dynamic routing: one function, several backends that give the same numbers.

`reference` is the paper, line by line. The others never store the votes.
"""

from __future__ import annotations

from typing import get_args

import torch
from jaxtyping import Float
from torch import Tensor

from capsnet.routing import reference
from capsnet.routing.reference import Gradient, RoutingTrace, softmax_over_parents

__all__ = ["BACKENDS", "Gradient", "RoutingTrace", "route", "softmax_over_parents", "trace_routing"]

#: Names for `route(backend=…)`, besides "auto".
BACKENDS = ("reference",)


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

    Args:
        u: children, (batch, in_caps, in_dim).
        weight: W_ij, one matrix for each pair of child and parent, (in_caps, in_dim, out_caps, out_dim).
        iterations: r, at least 1. r = 1 is routing without agreement: uniform couplings.
        backend: "auto" picks the fastest exact one for the device; or a name in `BACKENDS`.
        bias: reading of the authors' code; added to s before squash, (out_caps, out_dim).
        leaky: an extra zero logit in the softmax over parents: a child may go to none of them.
        gradient: "all" lets the gradient flow through every iteration; "last" treats the couplings of the
            last iteration as constants.

    Returns:
        Parents v, (batch, out_caps, out_dim), each of length < 1.

    Raises:
        ValueError: shapes that do not fit, iterations < 1, or an unknown backend or gradient.
    """
    _check(u, weight, iterations, bias, gradient)
    if backend not in ("auto", *BACKENDS):
        raise ValueError(f"route: backend {backend!r} is none of {', '.join(('auto', *BACKENDS))}")
    with torch.autocast(u.device.type, enabled=False):
        return reference.route(u, weight, iterations, bias=bias, leaky=leaky, gradient=gradient)


def trace_routing(
    u: Float[Tensor, "batch in_caps in_dim"],
    weight: Float[Tensor, "in_caps in_dim out_caps out_dim"],
    iterations: int = 3,
    *,
    bias: Float[Tensor, "out_caps out_dim"] | None = None,
    leaky: bool = False,
) -> RoutingTrace:
    """Route, and keep logits, couplings and outputs of every iteration. Arguments as for `route`."""
    _check(u, weight, iterations, bias, "all")
    steps: list[tuple[Tensor, Tensor, Tensor]] = []
    reference.route(u, weight, iterations, bias=bias, leaky=leaky, steps=steps)
    logits, couplings, outputs = (torch.stack(kind) for kind in zip(*steps, strict=True))
    return RoutingTrace(logits, couplings, outputs)


def _check(u: Tensor, weight: Tensor, iterations: int, bias: Tensor | None, gradient: str) -> None:
    if u.ndim != 3 or weight.ndim != 4 or u.shape[1:] != weight.shape[:2]:
        raise ValueError(
            f"route: u {tuple(u.shape)} must be (batch, in_caps, in_dim) and weight {tuple(weight.shape)} "
            "(in_caps, in_dim, out_caps, out_dim)"
        )
    if bias is not None and bias.shape != weight.shape[2:]:
        raise ValueError(f"route: bias {tuple(bias.shape)} must be {tuple(weight.shape[2:])}")
    if iterations < 1:
        raise ValueError(f"route: iterations is {iterations}; it must be at least 1")
    if gradient not in get_args(Gradient):
        raise ValueError(f"route: gradient {gradient!r} must be one of {', '.join(get_args(Gradient))}")
