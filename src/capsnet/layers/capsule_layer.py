"""Capsules: vectors whose length says *whether* and whose direction says *how*."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from capsnet.functional import squash
from capsnet.routing import Gradient, RoutingTrace, check_options, route, trace_routing

__all__ = ["CapsuleLayer", "squash"]


class CapsuleLayer(nn.Module):
    """A fully connected capsule layer: every child votes for every parent, and routing by agreement decides.

    Owns W (in_caps, in_dim, out_caps, out_dim), a separate matrix for every pair of child and parent.

    Args:
        in_caps: number of children.
        in_dim: numbers in each child.
        out_caps: number of parents.
        out_dim: numbers in each parent.
        iterations: routing iterations r of Procedure 1.
        bias: reading; add a learned (out_caps, out_dim) to s before squash. It starts at 0.1, as in the
            authors' code; the paper's text has none.
        leaky: reading; one extra zero logit in the softmax over parents, so that a child may go to nobody.
        gradient: reading; "all" (the gradient flows through every iteration) or "last" (couplings constant).
        init_std: standard deviation of W at the start.
        backend: "auto", or a name in `capsnet.routing.BACKENDS`.
        device: of W and the bias.
        dtype: of W and the bias, and so of the result.

    Shape:
        (batch, in_caps, in_dim) → (batch, out_caps, out_dim)

    Raises:
        ValueError: iterations < 1, an unknown gradient or backend.
    """

    def __init__(
        self,
        in_caps: int,
        in_dim: int,
        out_caps: int,
        out_dim: int,
        *,
        iterations: int = 3,
        bias: bool = False,
        leaky: bool = False,
        gradient: Gradient = "all",
        init_std: float = 0.1,
        backend: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_options(iterations, gradient, backend)
        sizes = {"in_caps": in_caps, "in_dim": in_dim, "out_caps": out_caps, "out_dim": out_dim}
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"CapsuleLayer: {name} is {size}; it must be at least 1")
        self.iterations = iterations
        self.leaky = leaky
        self.gradient: Gradient = gradient
        self.backend = backend
        self.init_std = init_std
        self.weight = nn.Parameter(
            torch.empty(in_caps, in_dim, out_caps, out_dim, device=device, dtype=dtype)
        )
        self.bias = nn.Parameter(torch.empty(out_caps, out_dim, device=device, dtype=dtype)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw W from N(0, init_std²); the bias starts at 0.1."""
        nn.init.normal_(self.weight, std=self.init_std)
        if self.bias is not None:
            nn.init.constant_(self.bias, 0.1)

    def forward(self, u: Float[Tensor, "batch in_caps in_dim"]) -> Float[Tensor, "batch out_caps out_dim"]:
        """Route the children u to the parents. The result is in W's dtype, under autocast too."""
        weight: Tensor = self.weight
        if u.is_cuda and torch.is_autocast_enabled("cuda"):
            # As autocast does for other products: 16-bit operands, sums in float32.
            dtype = torch.get_autocast_dtype("cuda")
            u, weight = u.to(dtype), weight.to(dtype)
        v = route(
            u,
            weight,
            self.iterations,
            backend=self.backend,
            bias=self.bias,
            leaky=self.leaky,
            gradient=self.gradient,
        )
        return v.to(self.weight.dtype)

    def trace(self, u: Float[Tensor, "batch in_caps in_dim"], iterations: int | None = None) -> RoutingTrace:
        """Logits, couplings and outputs of every routing iteration."""
        return trace_routing(
            u,
            self.weight,
            self.iterations if iterations is None else iterations,
            bias=self.bias,
            leaky=self.leaky,
        )

    def extra_repr(self) -> str:
        """Sizes and readings, for print(model)."""
        in_caps, in_dim, out_caps, out_dim = self.weight.shape
        readings = f"bias={self.bias is not None}, leaky={self.leaky}, gradient={self.gradient!r}"
        return (
            f"{in_caps}×{in_dim} → {out_caps}×{out_dim}, iterations={self.iterations}, {readings}, "
            f"backend={self.backend!r}"
        )
