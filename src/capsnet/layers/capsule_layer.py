"""Capsules: vectors whose length says *whether* and whose direction says *how*."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from capsnet.functional import squash
from capsnet.routing import Gradient, Routing, RoutingTrace, find_routing

__all__ = ["CapsuleLayer", "squash"]


class CapsuleLayer(nn.Module):
    """A fully connected capsule layer: every child votes for every parent, and routing by agreement decides.

    Owns W (in_caps, in_dim, out_caps, out_dim), a separate matrix for every pair of child and parent.

    Args:
        in_caps: number of children.
        in_dim: numbers in each child.
        out_caps: number of parents.
        out_dim: numbers in each parent.
        routing: a name in `capsnet.routing.ROUTINGS`, or an object that fulfils `capsnet.routing.Routing`.
        bias: reading; add a learned (out_caps, out_dim) to s before squash. It starts at 0.1, as in the
            authors' code; the paper's text has none.
        init_std: standard deviation of W at the start.
        iterations: option of dynamic routing, as the next three are; iterations r of Procedure 1, 3 by default.
        leaky: reading; one extra zero logit in the softmax over parents, so that a child may go to none of them.
        gradient: reading; "all" (the gradient flows through every iteration, the default) or "last" (couplings
            constant).
        backend: "auto" (the default), or a name in `capsnet.routing.BACKENDS`.
        device: of W and the bias.
        dtype: of W and the bias, and so of the result.

    Shape:
        (batch, in_caps, in_dim) → (batch, out_caps, out_dim)

    Raises:
        ValueError: a size or iterations < 1, an unknown routing, gradient or backend, or an option that the
            routing does not have.
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

    def forward(self, u: Float[Tensor, "batch in_caps in_dim"]) -> Float[Tensor, "batch out_caps out_dim"]:
        """Route the children u to the parents. The result is in W's dtype, under autocast too."""
        return self.routing.route(u, self.weight, self.bias).to(self.weight.dtype)

    def trace(self, u: Float[Tensor, "batch in_caps in_dim"], iterations: int | None = None) -> RoutingTrace:
        """Logits, couplings and outputs of every routing iteration."""
        return self.routing.trace(u, self.weight, self.bias, iterations)

    def extra_repr(self) -> str:
        """Sizes and readings, for print(model)."""
        in_caps, in_dim, out_caps, out_dim = self.weight.shape
        own = "" if isinstance(self.routing, nn.Module) else f", routing={self.routing!r}"
        return f"{in_caps}×{in_dim} → {out_caps}×{out_dim}, bias={self.bias is not None}{own}"
