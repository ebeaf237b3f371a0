"""What EM and variational Bayes routing share as layers: parents are a mixture fitted to the votes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from capsnet.routing.agree_reference import Children, PerChild, Weight
from capsnet.routing.registry import Capsules, check_iterations, refuse_bias
from capsnet.routing.trace import RoutingTrace, Steps, trace_of

#: Folds each window's log-sum over all windows of a child; see `capsnet.routing.windows`.
Fold = Callable[[Tensor], Tensor]


class Mixture(nn.Module):
    """A routing whose capsules have activations, with β_u and β_a for each parent. Both start at 0."""

    activates = True
    #: `route` takes `fold`, to normalise over all windows of a child.
    folds = True
    name: ClassVar[str]

    def __init__(self, iterations: int = 3, backend: str = "auto") -> None:
        super().__init__()
        check_iterations(self.name, iterations)
        self.iterations, self.backend = iterations, backend

    def build(self, weight: Weight) -> None:
        """Make β_u and β_a for this W."""
        self.beta_u = nn.Parameter(weight.new_zeros(weight.shape[2]))
        self.beta_a = nn.Parameter(torch.zeros_like(self.beta_u))

    def fit(self, u: Children, weight: Weight, activations: PerChild | None, **options: Any) -> Capsules:
        """Fit the parents to the votes. options: iterations, fold, backend and steps."""
        raise NotImplementedError

    def route(
        self,
        u: Children,
        weight: Weight,
        bias: Tensor | None = None,
        *,
        activations: PerChild | None = None,
        fold: Fold | None = None,
    ) -> Capsules:
        """Return the parents' poses and activations."""
        refuse_bias(self.name, bias)
        options: dict[str, Any] = {"iterations": self.iterations, "fold": fold, "backend": self.backend}
        return self.finish(weight, self.fit(u, weight, activations, **options))

    def finish(self, weight: Weight, parents: Capsules) -> Capsules:  # noqa: ARG002  for subclasses
        """Return poses and activations of the fitted parents."""
        return parents

    def trace(
        self,
        u: Children,
        weight: Weight,
        bias: Tensor | None = None,
        iterations: int | None = None,
        *,
        activations: PerChild | None = None,
    ) -> RoutingTrace:
        """Return logits, couplings, poses and activations of every iteration; poses as they are fitted."""
        refuse_bias(self.name, bias)
        steps: Steps = []
        count = self.iterations if iterations is None else iterations
        self.fit(u, weight, activations, iterations=count, backend=self.backend, steps=steps)
        fits = (
            self.fit(u, weight, activations, iterations=t + 1, backend=self.backend) for t in range(count)
        )
        kept = [(buffer, buffer.clone()) for buffer in self.buffers()]
        seen = torch.stack([self.finish(weight, fit).activations for fit in fits])
        with torch.no_grad():
            for buffer, before in kept:  # a trace trains nothing
                buffer.copy_(before)
        return replace(trace_of(steps), activations=seen)
