"""Self-attention routing: Efficient-CapsNet (Mazzia, Salvetti, Chiaberge 2021). One pass, no iterations."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from capsnet.routing.agree import agree, record, shaped_like
from capsnet.routing.agree_reference import Children, Weight
from capsnet.routing.agree_sums import share_gradients, sum_of_votes
from capsnet.routing.backends import compute_dtype
from capsnet.routing.layer import Parents, RoutingLayer
from capsnet.routing.registry import register
from capsnet.routing.trace import Steps


def self_attention(
    u: Children,
    weight: Weight,
    prior: Float[Tensor, "in_caps out_caps"] | None = None,
    *,
    backend: str = "auto",
    steps: Steps | None = None,
) -> Parents:
    """Route by the agreement of each vote with the sum of all votes.

        c_ij = softmax over parents of û_ij · Σ_l û_lj / √D        s_j = Σ_i (c_ij + β_ij) û_ij
        v = (1 − e^−‖s‖) s / ‖s‖

    Args:
        u: children, as for `capsnet.routing.agree`; so are weight, backend and the errors.
        weight: W, (in_caps, in_dim, out_caps, out_dim).
        prior: β, added to the couplings after the softmax, (in_caps, out_caps); 0 if None.
        backend: see `agree`.
        steps: receives (logits, couplings without β, outputs).

    Returns:
        Parents of length below 1, as vectors or matrices like the children.
    """
    dtype = compute_dtype(u, weight)
    u, weight = share_gradients(u.to(dtype), weight.to(dtype))
    prior = None if prior is None else prior.to(dtype)
    total = sum_of_votes(u, weight)
    query = total / total.shape[-1] ** 0.5
    s = agree(u, weight, query, backend=backend).first
    if prior is not None:
        s = s + sum_of_votes(u, weight, prior)
    v = shaped_like(u, squash_exponentially(s))
    record(steps, u, weight, v, query)
    return v


def squash_exponentially(s: Float[Tensor, "*n dim"]) -> Float[Tensor, "*n dim"]:
    """Shrink vectors to length 1 − e^−‖s‖, keeping the direction. At 0 the value is 0 and the gradient finite."""
    length = torch.linalg.vector_norm(s, dim=-1, keepdim=True).clamp_min(torch.finfo(s.dtype).tiny)
    v: Tensor = s * (-torch.expm1(-length) / length)
    return v


@register("self-attention")
class SelfAttention(RoutingLayer):
    """Self-attention routing with its learned prior β, for `CapsuleLayer(routing=…)`. β starts at 0."""

    name = "self-attention"

    def __init__(self, backend: str = "auto") -> None:
        super().__init__()
        self.backend = backend

    def build(self, weight: Weight) -> None:
        """Make β for this W."""
        self.prior = nn.Parameter(weight.new_zeros(weight.shape[0], weight.shape[2]))

    def run(
        self,
        u: Children,
        weight: Weight,
        iterations: int | None = None,  # noqa: ARG002  there is one pass
        steps: Steps | None = None,
    ) -> Parents:
        """See `self_attention`; a trace has the couplings without β."""
        return self_attention(u, weight, self.prior, backend=self.backend, steps=steps)
