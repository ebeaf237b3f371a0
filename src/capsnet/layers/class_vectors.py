"""Class capsules as vectors whose length says whether the class is present, with any routing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from capsnet.layers.capsule_layer import CapsuleLayer
from capsnet.routing import Capsules, RoutingTrace, find_routing

#: Options of a routing that is given by name. Children are short at first, so votes differ by about e^−4.5: with this
#: β_u, EM's costs start near 0; with this λ they decide soon.
SHORT_CHILDREN: dict[str, dict[str, float]] = {"em": {"beta_u": 4.5, "inverse_temperature": 0.05}}
#: Shortest pose that has a direction.
LEAST_LENGTH = 1e-6


class ClassVectors(CapsuleLayer):
    """A capsule layer whose parents have the length of their activation.

    Dynamic and self-attention routing give such vectors themselves. Other routings say differently whether a capsule
    is there, and their poses give the direction only:

    - a routing with activations (EM, variational Bayes) gets the children's lengths as activations, and its parents'
      activations become the lengths;
    - after a layer norm (inverted attention), all poses have about the same length. As in its paper, a linear map
      that all classes share reads a number from each pose; here its sigmoid becomes the length.

    Arguments, shapes and errors are those of `CapsuleLayer`, for vectors.
    """

    def __init__(self, in_caps: int, in_dim: int, out_caps: int, out_dim: int, **options: Any) -> None:
        routing = options.get("routing")
        if isinstance(routing, str) and routing in SHORT_CHILDREN:
            given = {name: options.pop(name, None) for name in ("iterations", "backend")}
            options["routing"] = find_routing(routing, **SHORT_CHILDREN[routing], **given)
        super().__init__(in_caps, in_dim, out_caps, out_dim, **options)
        kind: Any = {"device": self.weight.device, "dtype": self.weight.dtype}
        reads = getattr(self.routing, "same_lengths", False)
        self.presence = nn.Linear(out_dim, 1, **kind) if reads else None

    def forward(
        self,
        u: Float[Tensor, "batch in_caps in_dim"],
        activations: Float[Tensor, "batch in_caps"] | None = None,
    ) -> Float[Tensor, "batch out_caps out_dim"]:
        """Route the children to the parents. activations: the children's lengths if None."""
        parents = super().forward(u, self._children(u, activations))
        if isinstance(parents, Capsules):
            return with_length(*parents)
        if self.presence is not None:
            return with_length(parents, self.presence(parents)[..., 0].sigmoid())
        return parents

    @torch.no_grad()
    def trace(
        self,
        u: Float[Tensor, "batch in_caps in_dim"],
        iterations: int | None = None,
        activations: Float[Tensor, "batch in_caps"] | None = None,
    ) -> RoutingTrace:
        """Return logits, couplings and the parents' vectors of every routing iteration."""
        found = super().trace(u, iterations, self._children(u, activations))
        if self.presence is None and not getattr(self.routing, "activates", False):
            return found  # the parents are the vectors already
        outputs = []
        for number in range(1, len(found.outputs) + 1):
            with self._iterations(number):
                outputs.append(self(u, activations))
        return replace(found, outputs=torch.stack(outputs))

    def _children(self, u: Tensor, activations: Tensor | None) -> Tensor | None:
        if activations is None and getattr(self.routing, "activates", False):
            lengths: Tensor = torch.linalg.vector_norm(u, dim=-1)
            return lengths.clamp(max=1)  # a length is a probability; squash rounds to a little more than 1
        return activations

    @contextmanager
    def _iterations(self, number: int) -> Iterator[None]:
        routing: Any = self.routing
        before = getattr(routing, "iterations", None)
        if before is None:
            yield
            return
        routing.iterations = number
        try:
            yield
        finally:
            routing.iterations = before


def with_length(
    poses: Float[Tensor, "*batch dim"], lengths: Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch dim"]:
    """Return vectors of these lengths in the poses' directions."""
    norm: Tensor = torch.linalg.vector_norm(poses, dim=-1).clamp_min(LEAST_LENGTH)
    return poses * (lengths / norm)[..., None]
