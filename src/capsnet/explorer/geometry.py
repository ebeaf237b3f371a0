"""Project capsules and votes onto planes for the page's drawings."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


def main_directions(
    vectors: Float[Tensor, "*groups n dim"], count: int = 2
) -> Float[Tensor, "*groups dim count"]:
    """Return the orthonormal main directions of the vectors, from the origin.

    The sign of each direction makes the sum of its entries positive, so that the picture does not flip
    between two similar inputs.
    """
    wide = vectors.double()
    if wide.shape[-2] < wide.shape[-1]:
        directions = torch.linalg.svd(wide, full_matrices=False).Vh[..., :count, :].mT
    else:
        directions = torch.linalg.eigh(wide.mT @ wide).eigenvectors[..., -count:].flip(-1)
    sign = torch.where(directions.sum(dim=-2, keepdim=True) < 0, -1.0, 1.0)
    turned: Tensor = (directions * sign).to(vectors.dtype)
    return turned


def flatten_arrows(
    capsules: Float[Tensor, "types places dim"], planes: Float[Tensor, "types dim 2"]
) -> Float[Tensor, "types places 2"]:
    """Project each capsule onto its type's plane, and keep its length."""
    arrows = capsules @ planes
    length = capsules.norm(dim=-1, keepdim=True)
    stretched: Tensor = arrows * (length / arrows.norm(dim=-1, keepdim=True).clamp(min=1e-12))
    return stretched


@dataclass(frozen=True, eq=False)
class VotePlane:
    """Hold the votes for one parent in a plane: along its final vector, and beside it."""

    points: Float[Tensor, "in_caps 2"]
    mean: Float[Tensor, "iterations 2"]
    spread: Float[Tensor, "iterations 2 2"]
    outputs: Float[Tensor, "iterations 2"]
    rms: Float[Tensor, " iterations"]
    shown: float


def vote_plane(
    votes: Float[Tensor, "in_caps dim"],
    couplings: Float[Tensor, "iterations in_caps"],
    outputs: Float[Tensor, "iterations dim"],
) -> VotePlane:
    """Project the votes for one parent onto its final vector and a second axis.

    The first coordinate is û·v/‖v‖: multiplied by ‖v‖ it is what routing adds to the child's logit. Means and
    covariances are weighted by the couplings of each iteration.
    """
    final = outputs[-1]
    along = final / final.norm().clamp(min=1e-12)
    beside = main_directions(votes - (votes @ along)[:, None] * along, 1)[:, 0]
    plane = torch.stack((along, beside), dim=1)
    points = votes @ plane

    weights = couplings / couplings.sum(dim=1, keepdim=True).clamp(min=1e-12)
    mean = weights @ votes
    flat_mean = mean @ plane
    off = points - flat_mean[:, None]
    distance = (votes - mean[:, None]).norm(dim=-1)
    return VotePlane(
        points,
        flat_mean,
        torch.einsum("ti,tia,tib->tab", weights, off, off),
        outputs @ plane,
        (weights * distance.square()).sum(dim=1).sqrt(),
        float(points.square().sum() / votes.square().sum().clamp(min=1e-12)),
    )


def path_of(vectors: Float[Tensor, "steps dim"], origin: int) -> tuple[Float[Tensor, "steps 2"], float]:
    """Project a path, relative to its origin, onto its two main directions.

    Returns the path and the share of its sum of squares in these directions.
    """
    away = vectors - vectors[origin]
    path = away @ main_directions(away)
    return path, float(path.square().sum() / away.square().sum().clamp(min=1e-12))
