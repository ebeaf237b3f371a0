"""Inverted dot-product attention routing (Tsai, Srivastava, Goh, Salakhutdinov 2020)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from capsnet.functional import at_least_float32
from capsnet.routing.agree import agree, record, shaped_like
from capsnet.routing.agree_reference import Children, Weight
from capsnet.routing.agree_sums import share_gradients
from capsnet.routing.layer import Parents, RoutingLayer
from capsnet.routing.registry import check_iterations, register
from capsnet.routing.trace import Steps

PerNumber = Float[Tensor, " dim"]


def attend(
    u: Children,
    weight: Weight,
    parents: Parents | None = None,
    gain: PerNumber | None = None,
    shift: PerNumber | None = None,
    *,
    backend: str = "auto",
    steps: Steps | None = None,
) -> Parents:
    """Update the parents once: c_ij = softmax over parents of û_ij · v_j / √D, v ← LayerNorm(Σ_i c_ij û_ij).

    Args:
        u: children, as for `capsnet.routing.agree`; so are weight, backend and the errors.
        weight: W, (in_caps, in_dim, out_caps, out_dim).
        parents: v before, (batch, out_caps, *rows, out_dim); uniform couplings if None.
        gain: of the layer norm, (rows · out_dim); 1 if None.
        shift: of the layer norm, (rows · out_dim); 0 if None.
        backend: see `agree`.
        steps: receives (logits, couplings, outputs).
    """
    query = None
    if parents is not None:
        flat = at_least_float32(parents).flatten(2)
        query = flat / flat.shape[-1] ** 0.5
    s = agree(u, weight, query, backend=backend).first
    gain, shift = (None if x is None else x.to(s.dtype) for x in (gain, shift))
    v = shaped_like(u, layer_norm(s, s.shape[-1:], gain, shift))
    record(steps, at_least_float32(u), at_least_float32(weight), v, query)
    return v


def inverted_attention(
    u: Children,
    weight: Weight,
    gain: PerNumber | None = None,
    shift: PerNumber | None = None,
    iterations: int = 2,
    *,
    backend: str = "auto",
    steps: Steps | None = None,
) -> Parents:
    """Route one layer: `iterations` updates of the parents, the first with uniform couplings. See `attend`."""
    check_iterations("inverted_attention", iterations)
    u, weight = share_gradients(at_least_float32(u), at_least_float32(weight))
    parents = None
    for _ in range(iterations):
        parents = attend(u, weight, parents, gain, shift, backend=backend, steps=steps)
    assert parents is not None
    return parents


@register("inverted-attention")
class InvertedAttention(RoutingLayer):
    """Inverted dot-product attention with its layer norm, for `CapsuleLayer(routing=…)`. Vectors or square matrices.

    The layer norm has `rows` · out_dim numbers: 1 row for vectors, P for P × P matrix poses.
    """

    name = "inverted-attention"
    #: Lengths say nothing after a layer norm; see `capsnet.layers.class_vectors`.
    same_lengths = True

    def __init__(self, iterations: int = 2, rows: int = 1, backend: str = "auto") -> None:
        super().__init__()
        check_iterations(self.name, iterations)
        self.iterations, self.rows, self.backend = iterations, rows, backend

    def build(self, weight: Weight) -> None:
        """Make the layer norm's parameters for this W."""
        self.gain = nn.Parameter(weight.new_ones(self.rows * weight.shape[3]))
        self.shift = nn.Parameter(torch.zeros_like(self.gain))

    def update(
        self, u: Children, weight: Weight, parents: Parents | None = None, steps: Steps | None = None
    ) -> Parents:
        """Update the parents once; see `attend`."""
        return attend(u, weight, parents, self.gain, self.shift, backend=self.backend, steps=steps)

    def run(
        self, u: Children, weight: Weight, iterations: int | None = None, steps: Steps | None = None
    ) -> Parents:
        """See `inverted_attention`."""
        count = self.iterations if iterations is None else iterations
        return inverted_attention(u, weight, self.gain, self.shift, count, backend=self.backend, steps=steps)
