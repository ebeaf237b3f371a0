"""Procedure 1 of the paper, line by line. The oracle: every other backend is compared with this one.

It stores the votes û (batch, in_caps, out_caps, out_dim); the other backends exist because that is most of
the network's memory traffic.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from capsnet._support import dispatch
from capsnet.functional import squash
from capsnet.routing.trace import Steps

Gradient = Literal["all", "last"]


def route(
    u: Float[Tensor, "batch in_caps in_dim"],
    weight: Float[Tensor, "in_caps in_dim out_caps out_dim"],
    iterations: int = 3,
    *,
    bias: Float[Tensor, "out_caps out_dim"] | None = None,
    leaky: bool = False,
    gradient: Gradient = "all",
    steps: Steps | None = None,
) -> Float[Tensor, "batch out_caps out_dim"]:
    """Route child capsules to parent capsules (Procedure 1).

    Args and shapes are those of `capsnet.routing.route`. `steps`, if given, receives (logits, couplings,
    outputs) of each iteration.
    """
    votes = torch.einsum("bic,icjd->bijd", u, weight)  # û_j|i = W_ij u_i                     (equation 2)
    logits = torch.zeros_like(votes[..., 0])  # b_ij ← 0                                            (line 2)
    for iteration in range(1, iterations + 1):  # for r iterations do                               (line 3)
        couplings = softmax_over_parents(logits, leaky)  # c_i ← softmax(b_i)                       (line 4)
        is_last = iteration == iterations
        if gradient == "last":
            couplings = couplings.detach()
        s = torch.einsum("bij,bijd->bjd", couplings, votes)  # s_j ← Σ_i c_ij û_j|i                 (line 5)
        if bias is not None:
            s = s + bias
        v = squash(s)  # v_j ← squash(s_j)                                                          (line 6)
        if steps is not None:
            steps.append((logits, couplings, v))
        if not is_last:
            logits = logits + torch.einsum("bijd,bjd->bij", votes, v)  # b_ij ← b_ij + û_j|i · v_j  (line 7)
    return v  # (line 8)


def route_in_float32(
    u: Float[Tensor, "batch in_caps in_dim"],
    weight: Float[Tensor, "in_caps in_dim out_caps out_dim"],
    bias: Float[Tensor, "out_caps out_dim"] | None,
    *,
    iterations: int,
    leaky: bool,
    gradient: Gradient,
    steps: Steps | None = None,
) -> Float[Tensor, "batch out_caps out_dim"]:
    """Route tensors of any floating dtypes, under autocast too: in float32 or better, returned in the common dtype."""
    common = torch.promote_types(u.dtype, weight.dtype)
    dtype = torch.promote_types(common, torch.float32)
    bias = None if bias is None else bias.to(dtype)
    with dispatch.without_autocast(u.device):
        v = route(
            u.to(dtype), weight.to(dtype), iterations, bias=bias, leaky=leaky, gradient=gradient, steps=steps
        )
    return v.to(common)


def softmax_over_parents(
    logits: Float[Tensor, "*batch in_caps out_caps"], leaky: bool = False
) -> Float[Tensor, "*batch in_caps out_caps"]:
    """Return the couplings of each child (equation 3). Leaky: an extra logit of 0 stands for none of the parents."""
    if not leaky:
        return logits.softmax(dim=-1)
    no_parent = torch.zeros_like(logits[..., :1])
    return torch.cat([no_parent, logits], dim=-1).softmax(dim=-1)[..., 1:]
