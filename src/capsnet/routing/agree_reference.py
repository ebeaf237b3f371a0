"""One pass of agreement in plain PyTorch, by its equations: the law for `agree`. It stores the votes."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from capsnet.routing.reference import softmax_over_parents

Children = Float[Tensor, "batch in_caps *rows in_dim"]
Weight = Float[Tensor, "in_caps in_dim out_caps out_dim"]
PerParent = Float[Tensor, "batch out_caps"]
PerChild = Float[Tensor, "batch in_caps"]
Poses = Float[Tensor, "batch out_caps dim"]
Votes = Float[Tensor, "batch in_caps out_caps dim"]


class Inputs(NamedTuple):
    """The tensors of one pass, all of one dtype; see `capsnet.routing.agree`."""

    u: Children
    weight: Weight
    query: Poses | None
    precision: Poses | None
    offset: PerParent | None
    activations: PerChild | None
    normaliser: PerChild | None
    centre: Poses | None

    @property
    def dim(self) -> int:
        """Return how many numbers a vote has."""
        return self.weight.shape[3] * (self.u.shape[2] if self.u.ndim == 4 else 1)


def forward(given: Inputs, leaky: bool, wants_log_sums: bool) -> tuple[Tensor, ...]:
    """Return count, first and (with a precision) second moments; or each child's log-sum over the parents."""
    votes = votes_of(given.u, given.weight, given.centre)
    logits = logits_of(votes, given.query, given.precision, given.offset)
    if wants_log_sums:
        none = torch.zeros_like(logits[..., :1])
        return ((torch.cat([none, logits], dim=-1) if leaky else logits).logsumexp(-1),)
    couplings = couplings_of(logits, given.normaliser, leaky)
    shares = couplings if given.activations is None else given.activations[..., None] * couplings
    count, first = shares.sum(1), torch.einsum("bij,bijd->bjd", shares, votes)
    if given.precision is None:
        return count, first
    return count, first, torch.einsum("bij,bijd->bjd", shares, votes.square())


def votes_of(u: Children, weight: Weight, centre: Poses | None = None) -> Votes:
    """Return the votes û_ij = W_ij u_i, of matrix poses û = u W, flattened; less the centre."""
    if u.ndim == 3:
        votes = torch.einsum("bic,icjd->bijd", u, weight)
    else:
        votes = torch.einsum("birc,icjd->bijrd", u, weight).flatten(3)
    return votes if centre is None else votes - centre[:, None]


def logits_of(
    votes: Votes, query: Poses | None, precision: Poses | None, offset: PerParent | None
) -> Float[Tensor, "batch in_caps out_caps"]:
    """Return b_ij = k_j + û_ij · Q_j − ½ Σ_d Λ_jd û_ijd²."""
    logits = torch.zeros_like(votes[..., 0])
    if offset is not None:
        logits = logits + offset[:, None]
    if query is not None:
        logits = logits + torch.einsum("bijd,bjd->bij", votes, query)
    if precision is not None:
        logits = logits - torch.einsum("bijd,bjd->bij", votes.square(), precision) / 2
    return logits


def couplings_of(
    logits: Float[Tensor, "batch in_caps out_caps"], normaliser: PerChild | None, leaky: bool
) -> Float[Tensor, "batch in_caps out_caps"]:
    """Return c_ij: the softmax over parents, or exp(b_ij − Z_i)."""
    if normaliser is not None:
        return (logits - normaliser[..., None]).exp()
    return softmax_over_parents(logits, leaky)
