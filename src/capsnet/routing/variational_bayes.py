"""Variational Bayes routing (De Sousa Ribeiro, Leontidis, Kollias 2020): EM with conjugate priors."""

from __future__ import annotations

from math import e, log, pi
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from capsnet.functional import at_least_float32, digamma
from capsnet.routing.agree import agree, log_normaliser, record, shaped_like
from capsnet.routing.agree_reference import Children, PerChild, Weight
from capsnet.routing.agree_sums import share_gradients
from capsnet.routing.mixture import Fold, Mixture
from capsnet.routing.registry import Capsules, check_iterations, register
from capsnet.routing.trace import Steps


def variational_bayes(
    u: Children,
    weight: Weight,
    activations: PerChild | None,
    beta_u: Float[Tensor, " out_caps"],
    beta_a: Float[Tensor, " out_caps"],
    iterations: int = 3,
    *,
    fold: Fold | None = None,
    backend: str = "auto",
    steps: Steps | None = None,
) -> Capsules:
    """Fit a mixture of Gaussians with priors to the votes: Dirichlet α0 = 1, m0 = 0, κ0 = 1, Ψ0 = I, ν0 = D + 1.

        R_j = Σ_i R_ij a_i    α = 1 + R    κ = 1 + R    ν = D + 1 + R    m = Σ R û / κ    Ψ⁻¹ = 1 + Σ R û² − κ m²
        R_ij ∝ exp(E ln π_j + ½ E ln|Λ_j| − ½ D ln 2π − ½ (D / κ + ν Σ_d Ψ_d (û − m)²_d))

    Arguments are those of `capsnet.routing.em`. The paper normalises over all windows of a child: give `fold`.

    Returns:
        Poses m, and scores β_a − (exp(E ln π) · H + β_u) in place of activations: the layer makes them of these with
        a batch norm and a sigmoid, see `VariationalBayes`.
    """
    check_iterations("variational_bayes", iterations)
    u, weight = wide, w = share_gradients(at_least_float32(u), at_least_float32(weight))
    dim = w.shape[3] * u.shape[2:-1].numel()
    d = torch.arange(dim, dtype=torch.promote_types(wide.dtype, w.dtype), device=u.device)
    query = offset = z = None
    precision = d.new_zeros(u.shape[0], w.shape[2], dim)  # Λ = 0: uniform responsibilities
    for t in range(1, iterations + 1):
        if fold is not None and t > 1:
            z = fold(log_normaliser(u, weight, query, precision=precision, offset=offset, backend=backend))
        given: Any = {"precision": precision, "offset": offset, "normaliser": z}
        count, first, second = agree(u, weight, query, activations=activations, backend=backend, **given)
        assert second is not None
        alpha, kappa, nu = 1 + count, 1 + count, dim + 1 + count
        mean = first / kappa[..., None]
        # Σ R (û − μ)² + (R/κ) μ² without the division by R. It is never below 1, but for rounding.
        inverse_psi = (1 + second - kappa[..., None] * mean.square()).clamp_min(1)
        log_det = digamma((nu[..., None] - d) / 2).sum(-1) + dim * log(2) - inverse_psi.log().sum(-1)
        log_pi = digamma(alpha) - digamma(alpha.sum(-1, keepdim=True))
        record(steps, wide, w, shaped_like(u, mean), query, **given)
        precision = nu[..., None] / inverse_psi
        query = precision * mean
        constants = log_det - dim * log(2 * pi) - dim / kappa - (query * mean).sum(-1)
        offset = log_pi + constants / 2
    entropy = (dim * log(2 * pi * e) - log_det) / 2
    return Capsules(shaped_like(u, mean), beta_a - (log_pi.exp() * entropy + beta_u))


@register("variational-bayes")
class VariationalBayes(Mixture):
    """Variational Bayes routing with β_u, β_a and its batch norms, for `CapsuleLayer(routing=…)`."""

    name = "variational-bayes"

    def build(self, weight: Weight) -> None:
        """Make the parameters and the batch norms, one number for each parent, for this W."""
        super().build(weight)
        kind: Any = {"device": weight.device, "dtype": weight.dtype}
        self.pose_norm = nn.BatchNorm1d(weight.shape[2], affine=False, **kind)
        self.activation_norm = nn.BatchNorm1d(weight.shape[2], affine=False, **kind)

    def fit(self, u: Children, weight: Weight, activations: PerChild | None, **options: Any) -> Capsules:
        """See `variational_bayes`."""
        return variational_bayes(u, weight, activations, self.beta_u, self.beta_a, **options)

    def finish(self, weight: Weight, parents: Capsules) -> Capsules:
        """Normalise poses and scores; activations are sigmoids of the normalised scores."""
        poses, scores = (x.to(weight.dtype) for x in parents)
        poses = self.pose_norm(poses.flatten(2)).view_as(poses)
        return Capsules(poses, self.activation_norm(scores).sigmoid())
