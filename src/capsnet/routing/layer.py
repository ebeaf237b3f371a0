"""What routings without activations share as layers: no bias on s, and a trace of the recorded steps."""

from __future__ import annotations

from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from capsnet.routing.agree_reference import Children, Weight
from capsnet.routing.registry import refuse_bias
from capsnet.routing.trace import RoutingTrace, Steps, trace_of

Parents = Float[Tensor, "batch out_caps *rows out_dim"]


class RoutingLayer(nn.Module):
    """A routing for `CapsuleLayer(routing=…)` whose equations are in `run`."""

    name: ClassVar[str]

    def run(
        self, u: Children, weight: Weight, iterations: int | None = None, steps: Steps | None = None
    ) -> Parents:
        """Route children to parents. iterations: the layer's own if None; steps: receives those of a trace."""
        raise NotImplementedError

    def route(self, u: Children, weight: Weight, bias: Tensor | None = None) -> Parents:
        """Return the parents."""
        refuse_bias(self.name, bias)
        return self.run(u, weight)

    def trace(
        self, u: Children, weight: Weight, bias: Tensor | None = None, iterations: int | None = None
    ) -> RoutingTrace:
        """Return logits, couplings and outputs of every iteration; of the one pass where there are none."""
        refuse_bias(self.name, bias)
        steps: Steps = []
        self.run(u, weight, iterations, steps)
        return trace_of(steps)
