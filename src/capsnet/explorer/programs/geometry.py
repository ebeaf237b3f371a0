"""Project capsules and votes onto planes for the page's drawings."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

#: Squarings of the Gram matrix: 2⁸ = 256 power iterations. A fixed number is a smooth function of the vectors, so
#: that rounding in another engine changes a direction by little, even between two nearly equal eigenvalues.
SQUARINGS = 8


def main_directions(
    vectors: Float[Tensor, "*groups n dim"], count: int = 2
) -> Float[Tensor, "*groups dim count"]:
    """Return the orthonormal main directions of the vectors, from the origin.

    By power iterations, since ONNX has no eigenvectors: exact up to the ratio of neighbouring eigenvalues, to the power
    of 256. The sign of each direction makes the sum of its entries positive, so that the picture does not flip
    between two similar inputs.
    """
    rest = vectors.double()
    found = []
    for _ in range(count):
        direction = _strongest(rest)
        found.append(direction)
        rest = rest - (rest @ direction[..., None]) * direction[..., None, :]
    directions = torch.stack(found, dim=-1)
    sign = torch.where(directions.sum(dim=-2, keepdim=True) < 0, -1.0, 1.0)
    turned: Tensor = (directions * sign).to(vectors.dtype)
    return turned


def _strongest(vectors: Float[Tensor, "*groups n dim"]) -> Float[Tensor, "*groups dim"]:
    """Return the unit vector along the first eigenvector of the Gram matrix, by repeated squaring."""
    wide = vectors.shape[-2] < vectors.shape[-1]
    power = _unit(vectors @ vectors.mT if wide else vectors.mT @ vectors)
    for _ in range(SQUARINGS):
        power = _unit(power @ power)
    # All columns of a matrix of rank 1 are parallel; the longest is the most exact.
    column = torch.diagonal(power, dim1=-2, dim2=-1).argmax(dim=-1)[..., None, None]
    first = torch.take_along_dim(power, column, dim=-1)
    direction = (vectors.mT @ first if wide else first)[..., 0]
    unit: Tensor = direction / direction.norm(dim=-1, keepdim=True).clamp(min=1e-30)
    return unit


def _unit(gram: Float[Tensor, "*groups n n"]) -> Float[Tensor, "*groups n n"]:
    """Scale a Gram matrix to trace 1."""
    trace = torch.diagonal(gram, dim1=-2, dim2=-1).sum(dim=-1)[..., None, None]
    return gram / trace.clamp(min=1e-30)


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
    shown: Float[Tensor, ""]


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
        points.square().sum() / votes.square().sum().clamp(min=1e-12),
    )


def path_of(
    vectors: Float[Tensor, "steps dim"], origin: int
) -> tuple[Float[Tensor, "steps 2"], Float[Tensor, ""]]:
    """Project a path, relative to its origin, onto its two main directions.

    Returns the path and the share of its sum of squares in these directions.
    """
    away = vectors - vectors[origin]
    path = away @ main_directions(away)
    return path, path.square().sum() / away.square().sum().clamp(min=1e-12)
