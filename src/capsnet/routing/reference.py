"""Procedure 1 of the paper, line by line. The oracle: every other backend is compared with this one.

It stores the votes û (batch, in_caps, out_caps, out_dim); the other backends exist because that is most of
the network's memory traffic.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from capsnet._support import dispatch
from capsnet._support.notebook import bar, table, text
from capsnet.functional import squash

Gradient = Literal["all", "last"]
#: Rows of a trace's table in notebooks.
PARENTS_SHOWN = 20


@dataclass(frozen=True, eq=False)
class RoutingTrace:
    """What happened in each of the r routing iterations (first axis of every tensor)."""

    logits: Float[Tensor, "iterations batch in_caps out_caps"]
    """b: how well each child's votes have agreed with each parent so far; 0 in the first iteration."""
    couplings: Float[Tensor, "iterations batch in_caps out_caps"]
    """c: how much of each child goes to each parent; sums to 1 over parents (to less when leaky)."""
    outputs: Float[Tensor, "iterations batch out_caps *rows out_dim"]
    """v: the parents' vectors, or matrix poses."""
    leaky: bool = False
    """Whether routing was leaky: the couplings of a child then sum to less than 1, and the rest goes to no parent."""
    activations: Float[Tensor, "iterations batch out_caps"] | None = None
    """The parents' activations; None where a parent's length has their place."""
    children: Float[Tensor, "batch in_caps *rows in_dim"] | None = None
    """u, the children in the last iteration; None from a routing that no layer called."""
    children_by_iteration: Float[Tensor, "iterations batch in_caps *rows in_dim"] | None = None
    """u in each iteration, where concurrent routing changes it."""
    weight: Float[Tensor, "in_caps in_dim out_caps out_dim"] | None = None
    """W of every pair; None as above."""
    child_activations: Float[Tensor, "batch in_caps"] | None = None
    """The children's activations; None where a child's length has their place."""

    @property
    def presence(self) -> Float[Tensor, "batch in_caps"]:
        """Return how much of each child is there, from 0 to 1: its activation, or its length, at most 1."""
        if self.child_activations is not None:
            return self.child_activations
        if self.children is None:
            return torch.ones_like(self.couplings[0, :, :, 0])
        lengths: Tensor = torch.linalg.vector_norm(self.children.flatten(2), dim=-1)
        return lengths.clamp(max=1)

    @property
    def scores(self) -> Float[Tensor, "iterations batch out_caps"]:
        """Return the parents' activations, or their lengths where they have none."""
        if self.activations is not None:
            return self.activations
        lengths: Tensor = torch.linalg.vector_norm(self.outputs.flatten(3), dim=-1)
        return lengths

    @torch.no_grad()
    def votes(self, example: int = 0) -> Float[Tensor, "in_caps out_caps *rows out_dim"]:
        """Return the votes û = W u of one example.

        Raises:
            ValueError: the trace was made without a layer, so it has no children and no W.
        """
        if self.children is None or self.weight is None:
            raise ValueError("votes: this trace has no children and no W; trace a layer or a model instead")
        return torch.einsum("i...c,icjd->ij...d", self.children[example], self.weight)

    def _repr_html_(self) -> str:
        """Return the first example's lengths and mean couplings as a table for notebooks."""
        lengths = self.outputs[:, 0].detach().flatten(2).float().norm(dim=-1)
        couplings = self.couplings[:, 0].detach().float().mean(dim=1)
        order = lengths[-1].argsort(descending=True)[:PARENTS_SHOWN].tolist()
        rows = [
            [
                text(parent),
                *(
                    bar(float(length), f"{float(length):.3f}, c̄ {float(coupling):.3f}")
                    for length, coupling in zip(lengths[:, parent], couplings[:, parent], strict=True)
                ),
            ]
            for parent in order
        ]
        sizes = f"{self.couplings.shape[2]:,} children → {self.couplings.shape[3]} parents"
        header = ("parent", *(f"iteration {number + 1}" for number in range(len(lengths))))
        return table(f"routing of the first of {self.couplings.shape[1]} examples, {sizes}", rows, header)


def route(
    u: Float[Tensor, "batch in_caps in_dim"],
    weight: Float[Tensor, "in_caps in_dim out_caps out_dim"],
    iterations: int = 3,
    *,
    bias: Float[Tensor, "out_caps out_dim"] | None = None,
    leaky: bool = False,
    gradient: Gradient = "all",
    steps: list[tuple[Tensor, Tensor, Tensor]] | None = None,
) -> Float[Tensor, "batch out_caps out_dim"]:
    """Dynamic routing between capsules (Procedure 1).

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
    steps: list[tuple[Tensor, Tensor, Tensor]] | None = None,
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
    """Couplings of each child (equation 3). Leaky: an extra logit of 0 stands for none of the parents."""
    if not leaky:
        return logits.softmax(dim=-1)
    no_parent = torch.zeros_like(logits[..., :1])
    return torch.cat([no_parent, logits], dim=-1).softmax(dim=-1)[..., 1:]
