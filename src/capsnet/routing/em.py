"""EM routing: matrix capsules (Hinton, Sabour, Frosst 2018). Each parent is a Gaussian fitted to its votes."""

from __future__ import annotations

from math import log, pi
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from capsnet.functional import at_least_float32
from capsnet.routing.agree import agree, log_normaliser, record, shaped_like
from capsnet.routing.agree_reference import Children, PerChild, Weight
from capsnet.routing.agree_sums import share_gradients
from capsnet.routing.mixture import Fold, Mixture
from capsnet.routing.registry import Capsules, check_iterations, register
from capsnet.routing.trace import Steps

#: A parent with fewer children has none: values and gradients stay finite. Deviations have 10 ε of the dtype at least.
LEAST_COUNT = 1e-8


def em(
    u: Children,
    weight: Weight,
    activations: PerChild | None,
    beta_u: Float[Tensor, " out_caps"],
    beta_a: Float[Tensor, " out_caps"],
    iterations: int = 3,
    *,
    inverse_temperature: float | Tensor = 0.01,
    fold: Fold | None = None,
    backend: str = "auto",
    steps: Steps | None = None,
) -> Capsules:
    """Fit Gaussians to the votes, and let each child choose among them.

        M  μ = Σ R û / Σ R    σ² = Σ R (û − μ)² / Σ R    cost = Σ_h (β_u + ln σ_h) Σ R    a = sigmoid(λ (β_a − cost))
        E  p_ij = exp(−Σ_h (û − μ)² / 2σ²) / √Π_h 2πσ²    R_ij = a_i · a_j p_ij / Σ_j a_j p_ij    at first a_i / J

    Args:
        u: children, as for `capsnet.routing.agree`; so are weight, activations, backend and the errors.
        weight: W, (in_caps, in_dim, out_caps, out_dim).
        activations: the children's, in [0, 1]; 1 if None.
        beta_u: β_u of each parent.
        beta_a: β_a of each parent.
        iterations: r, at least 1.
        inverse_temperature: λ at the end; in iteration t it is this times 1 − 0.95^t.
        fold: the E step over all windows of a child, as the paper means it; over the parents of one window if None.
        backend: see `agree`.
        steps: receives (logits, couplings, poses) of each iteration.
    """
    check_iterations("em", iterations)
    u, weight = wide, w = share_gradients(at_least_float32(u), at_least_float32(weight))
    with torch.no_grad():  # votes are taken from the last mean: squares about 0 would lose digits
        count, first, _ = agree(u, weight, activations=activations, backend=backend)
        centre = first / count.clamp_min(LEAST_COUNT)[..., None]
    given: Any
    query = offset = z = None
    precision = torch.zeros_like(centre)  # Λ = 0: uniform couplings
    for t in range(1, iterations + 1):
        if fold is not None and t > 1:
            given = {"precision": precision, "offset": offset, "centre": centre, "backend": backend}
            z = fold(log_normaliser(u, weight, query, **given))
        given = {"precision": precision, "offset": offset, "normaliser": z, "centre": centre}
        count, first, second = agree(u, weight, query, activations=activations, backend=backend, **given)
        assert second is not None
        total = count.clamp_min(LEAST_COUNT)[..., None]
        shift = first / total
        mean = centre + shift
        variance = (second / total - shift.square()).clamp_min((10 * torch.finfo(mean.dtype).eps) ** 2)
        cost = (beta_u[:, None] + variance.log() / 2) * count[..., None]
        score = inverse_temperature * (1 - 0.95**t) * (beta_a - cost.sum(-1))
        record(steps, wide, w, shaped_like(u, mean), query, **given)
        centre, precision = mean.detach(), 1 / variance
        query = precision * (mean - centre)  # 0, with a gradient
        constants = query * (mean - centre) + variance.log() + log(2 * pi)
        offset = logsigmoid(score) - constants.sum(-1) / 2
    return Capsules(shaped_like(u, mean), score.sigmoid())


@register("em")
class EM(Mixture):
    """EM routing with its β_u and β_a, for `CapsuleLayer(routing=…)`.

    `beta_u` is β_u at the start: 0 suits votes of deviation 1. In training λ is multiplied with `warmth`, which a model
    may let rise.
    """

    name = "em"
    warmth: Tensor

    def __init__(
        self,
        iterations: int = 3,
        inverse_temperature: float = 0.01,
        backend: str = "auto",
        *,
        beta_u: float = 0.0,
    ) -> None:
        super().__init__(iterations, backend)
        self.inverse_temperature, self.first_beta_u = inverse_temperature, beta_u
        self.register_buffer("warmth", torch.ones(()), persistent=False)

    def build(self, weight: Weight) -> None:
        """Make β_u and β_a for this W."""
        super().build(weight)
        nn.init.constant_(self.beta_u, self.first_beta_u)

    def fit(self, u: Children, weight: Weight, activations: PerChild | None, **options: Any) -> Capsules:
        """See `em`."""
        temperature = self.inverse_temperature * (self.warmth if self.training else 1)
        return em(
            u, weight, activations, self.beta_u, self.beta_a, inverse_temperature=temperature, **options
        )
