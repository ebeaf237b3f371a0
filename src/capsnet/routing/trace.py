"""The trace of a routing: what happened in each iteration."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from capsnet._support.notebook import bar, table, text

#: Logits, couplings and outputs of each iteration, as a routing records them.
Steps = list[tuple[Tensor, Tensor, Tensor]]
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
        """Return the first example's scores and mean couplings as a table for notebooks."""
        scores = self.scores[:, 0].detach().float()
        couplings = self.couplings[:, 0].detach().float().mean(dim=1)
        order = scores[-1].argsort(descending=True)[:PARENTS_SHOWN].tolist()
        rows = [
            [
                text(parent),
                *(
                    bar(float(score), f"{float(score):.3f}, c̄ {float(coupling):.3f}")
                    for score, coupling in zip(scores[:, parent], couplings[:, parent], strict=True)
                ),
            ]
            for parent in order
        ]
        sizes = f"{self.couplings.shape[2]:,} children → {self.couplings.shape[3]} parents"
        header = ("parent", *(f"iteration {number + 1}" for number in range(len(scores))))
        return table(f"routing of the first of {self.couplings.shape[1]} examples, {sizes}", rows, header)


def trace_of(steps: Steps) -> RoutingTrace:
    """Return recorded iterations as a trace."""
    logits, couplings, outputs = (torch.stack(kind) for kind in zip(*steps, strict=True))
    return RoutingTrace(logits, couplings, outputs)
