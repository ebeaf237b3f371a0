"""The fully connected capsule layer.

A capsule is a vector. Its length says whether an object is present, and its direction says how it looks.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from capsnet._support.errors import CapsnetError
from capsnet.functional import squash
from capsnet.routing import Capsules, Gradient, Routing, RoutingTrace, find_routing

__all__ = ["CapsuleLayer", "squash"]


class CapsuleLayer(nn.Module):
    """A fully connected capsule layer with routing by agreement.

    Every child capsule votes for every parent capsule. The layer owns W (in_caps, in_dim, out_caps, out_dim): one
    matrix for each pair of child and parent.

    Some arguments choose a reading, where the paper's text and the authors' code differ (see docs/readings.md).

    Args:
        in_caps: number of children.
        in_dim: dimension of a child.
        out_caps: number of parents.
        out_dim: dimension of a parent.
        routing: a name in `capsnet.routing.ROUTINGS`, or an object that implements `capsnet.routing.Routing`.
        bias: reading; add a learned bias (out_caps, out_dim) to s before squash. It starts at 0.1, as in the authors'
            code. The paper's text has no bias.
        init_std: standard deviation of W at the start.
        iterations: option of dynamic routing, as are the next three. Iterations r of Procedure 1; default 3.
        leaky: reading; add a zero logit to the softmax over parents, so that a child may choose no parent.
        gradient: reading; "all" (default): the gradient flows through every iteration. "last": the couplings are
            constants.
        backend: "auto" (default), or a name in `capsnet.routing.BACKENDS`.
        device: device of W and the bias.
        dtype: type of W, the bias and the result.

    Shape:
        (batch, in_caps, in_dim) → (batch, out_caps, out_dim)

    Raises:
        ValueError: a size or iterations is below 1; routing, gradient or backend is unknown; or the routing does not
            have an option.
    """

    def __init__(
        self,
        in_caps: int,
        in_dim: int,
        out_caps: int,
        out_dim: int,
        *,
        routing: str | Routing = "dynamic",
        bias: bool = False,
        init_std: float = 0.1,
        iterations: int | None = None,
        leaky: bool | None = None,
        gradient: Gradient | None = None,
        backend: str | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        sizes = {"in_caps": in_caps, "in_dim": in_dim, "out_caps": out_caps, "out_dim": out_dim}
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"CapsuleLayer: {name} is {size}; it must be at least 1")
        self.routing = find_routing(
            routing, iterations=iterations, leaky=leaky, gradient=gradient, backend=backend
        )
        self.init_std = init_std
        self.weight = nn.Parameter(
            torch.empty(in_caps, in_dim, out_caps, out_dim, device=device, dtype=dtype)
        )
        self.bias = nn.Parameter(torch.empty(out_caps, out_dim, device=device, dtype=dtype)) if bias else None
        self.reset_parameters()
        if hasattr(self.routing, "build"):
            self.routing.build(self.weight)

    def reset_parameters(self) -> None:
        """Draw W from N(0, init_std²); the bias starts at 0.1."""
        nn.init.normal_(self.weight, std=self.init_std)
        if self.bias is not None:
            nn.init.constant_(self.bias, 0.1)

    def forward(
        self,
        u: Float[Tensor, "batch in_caps *rows in_dim"],
        activations: Float[Tensor, "batch in_caps"] | None = None,
    ) -> Float[Tensor, "batch out_caps *rows out_dim"] | Capsules:
        """Route the children to the parents.

        The result has W's dtype, under autocast too.

        Args:
            u: the children's poses: vectors, or matrices for the routings that take them (dynamic routing does not).
            activations: the children's, for routings with activations; 1 if None.

        Returns:
            The parents' poses; `Capsules`, poses and activations, from a routing with activations.

        Raises:
            CapsnetError: activations for a routing that has none.
        """
        parents: Tensor | Capsules = self.routing.route(u, self.weight, self.bias, **self._extra(activations))
        if isinstance(parents, Capsules):
            return Capsules(*(x.to(self.weight.dtype) for x in parents))
        return parents.to(self.weight.dtype)

    def trace(
        self,
        u: Float[Tensor, "batch in_caps *rows in_dim"],
        iterations: int | None = None,
        activations: Float[Tensor, "batch in_caps"] | None = None,
    ) -> RoutingTrace:
        """Return logits, couplings and outputs of every routing iteration. Arguments as for `forward`."""
        found = self.routing.trace(u, self.weight, self.bias, iterations, **self._extra(activations))
        return replace(found, children=u, weight=self.weight, child_activations=activations)

    def _extra(self, activations: Tensor | None) -> dict[str, Any]:
        if getattr(self.routing, "activates", False):
            return {"activations": activations}
        if activations is not None:
            raise CapsnetError(
                f"routing {type(self.routing).__name__} has no activations; give the poses alone"
            )
        return {}

    def extra_repr(self) -> str:
        """Return sizes and options, for print(model)."""
        in_caps, in_dim, out_caps, out_dim = self.weight.shape
        own = "" if isinstance(self.routing, nn.Module) else f", routing={self.routing!r}"
        return f"{in_caps}×{in_dim} → {out_caps}×{out_dim}, bias={self.bias is not None}{own}"
