"""One pass of agreement over the children, from which every routing is made: `agree`.

The plain form below is the law. The fast forms never store the votes, and are compared with it.

    b_ij = k_j + û_ij · Q_j − ½ Σ_d Λ_jd û_ijd²        c_ij = softmax over parents of b_ij
    count_j = Σ_i a_i c_ij     first_j = Σ_i a_i c_ij û_ij     second_j = Σ_i a_i c_ij û_ij²
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from capsnet._support import dispatch
from capsnet.routing import agree_chunked
from capsnet.routing.reference import RoutingTrace, softmax_over_parents

Children = Float[Tensor, "batch in_caps *rows in_dim"]
Weight = Float[Tensor, "in_caps in_dim out_caps out_dim"]
PerParent = Float[Tensor, "batch out_caps"]
PerChild = Float[Tensor, "batch in_caps"]
Poses = Float[Tensor, "batch out_caps dim"]
#: Logits, couplings and outputs of each pass.
Steps = list[tuple[Tensor, Tensor, Tensor]]

#: Names for `agree(backend=…)`, besides "auto".
AGREE_BACKENDS = ("reference", "chunked")


class Moments(NamedTuple):
    """What the parents receive from all children: moments of the votes, weighted by activation and coupling."""

    count: PerParent  # type: ignore[assignment]  # hides tuple.count
    """Σ_i a_i c_ij."""
    first: Poses
    """Σ_i a_i c_ij û_ij."""
    second: Poses | None
    """Σ_i a_i c_ij û_ij²; None without a precision."""


def agree(
    u: Children,
    weight: Weight,
    query: Poses | None = None,
    *,
    precision: Poses | None = None,
    offset: PerParent | None = None,
    activations: PerChild | None = None,
    normaliser: PerChild | None = None,
    leaky: bool = False,
    backend: str = "auto",
) -> Moments:
    """Sum the children's votes for each parent, weighted by how well they agree with it.

    Gradients flow to every tensor. Computed in float32, or float64 where u or weight is, under autocast too.

    Args:
        u: children, vectors (batch, in_caps, in_dim) or matrix poses (batch, in_caps, rows, in_dim). The rows of a
            matrix share W: û = u W, and a vote has dim = rows · out_dim numbers, row after row. Vectors have
            dim = out_dim.
        weight: W, (in_caps, in_dim, out_caps, out_dim).
        query: Q, (batch, out_caps, dim); 0 if None.
        precision: Λ, at least 0, (batch, out_caps, dim); 0 if None, and then no second moments are made.
        offset: k, (batch, out_caps); 0 if None.
        activations: a, in [0, 1], (batch, in_caps); 1 if None.
        normaliser: Z, (batch, in_caps): c_ij = exp(b_ij − Z_i) in place of the softmax; see `log_normaliser`.
        leaky: an extra logit of 0 in the softmax: a child may go to no parent.
        backend: "reference" stores the votes; "chunked" never does, on any device. "auto" picks chunked, and the
            reference where `route` does. Graphs that `torch.compile` captures hold the reference.

    Returns:
        Moments in the dtype of the computation.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit, activations outside [0, 1] or a negative precision
            (values are checked on CPUs), leaky with a normaliser, or an unknown backend.
    """
    tensors = (u, weight, query, precision, offset, activations, normaliser)
    _check("agree", *tensors, leaky=leaky, backend=backend)
    with dispatch.without_autocast(u.device):
        wide: Any = _in_one_dtype(tensors)
        if _is_plain(wide, backend):
            return Moments(*reference(*wide, leaky=leaky))
        if all(x is None for x in (query, precision, offset, normaliser)):
            return _uniform(wide[0], wide[1], wide[5], leaky)
        return Moments(*agree_chunked.moments(reference, wide, leaky))


def log_normaliser(
    u: Children,
    weight: Weight,
    query: Poses | None = None,
    *,
    precision: Poses | None = None,
    offset: PerParent | None = None,
    leaky: bool = False,
    backend: str = "auto",
) -> PerChild:
    """Sum each child's exponentiated logits over the parents: Z_i = ln Σ_j exp b_ij, (batch, in_caps).

    With it as the normaliser, `agree` has the couplings of the softmax. Convolutional capsules add up the windows that
    hold a child first. Arguments, gradients and errors are those of `agree`.
    """
    tensors = (u, weight, query, precision, offset)
    _check("log_normaliser", *tensors, leaky=leaky, backend=backend)
    with dispatch.without_autocast(u.device):
        wide: Any = _in_one_dtype(tensors)
        if _is_plain(wide, backend):
            return reference_log_normaliser(*wide, leaky=leaky)
        return agree_chunked.log_normaliser(reference_log_normaliser, wide, leaky)


def sum_of_votes(
    u: Children, weight: Weight, scale: Float[Tensor, "in_caps out_caps"] | None = None
) -> Poses:
    """Return Σ_i scale_ij û_ij (scale: 1 if None): a plain matrix product, which needs no votes."""
    if scale is not None:
        weight = weight * scale[:, None, :, None]
    if u.ndim == 3:
        return torch.einsum("bic,icjd->bjd", u, weight)
    return torch.einsum("birc,icjd->bjrd", u, weight).flatten(2)


def shaped_like(u: Children, poses: Poses) -> Float[Tensor, "batch out_caps *rows out_dim"]:
    """Return the parents' poses as vectors or as matrices, as the children's are."""
    rows = u.shape[2:-1]
    return poses.reshape(*poses.shape[:2], *rows, poses.shape[2] // max(1, rows.numel()))


@torch.no_grad()
def record(
    steps: Steps | None,
    u: Children,
    weight: Weight,
    outputs: Tensor,
    query: Poses | None = None,
    *,
    precision: Poses | None = None,
    offset: PerParent | None = None,
    normaliser: PerChild | None = None,
) -> None:
    """Append the logits and couplings of one pass, and the parents made from it, if steps are asked for."""
    if steps is not None:
        logits = logits_of(votes_of(u, weight), query, precision, offset)
        steps.append((logits, couplings_of(logits, normaliser, False), outputs.detach()))


def trace_of(steps: Steps) -> RoutingTrace:
    """Return the recorded passes as a trace."""
    logits, couplings, outputs = (torch.stack(kind) for kind in zip(*steps, strict=True))
    return RoutingTrace(logits, couplings, outputs)


def reference(
    u: Tensor,
    weight: Tensor,
    query: Tensor | None,
    precision: Tensor | None,
    offset: Tensor | None,
    activations: Tensor | None,
    normaliser: Tensor | None,
    *,
    leaky: bool,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the moments by the equations at the top of this file."""
    votes = votes_of(u, weight)
    logits = logits_of(votes, query, precision, offset)
    couplings = couplings_of(logits, normaliser, leaky)
    shares = couplings if activations is None else activations[..., None] * couplings
    first = torch.einsum("bij,bijd->bjd", shares, votes)
    if precision is None:
        return shares.sum(1), first, None
    return shares.sum(1), first, torch.einsum("bij,bijd->bjd", shares, votes.square())


def reference_log_normaliser(
    u: Tensor,
    weight: Tensor,
    query: Tensor | None,
    precision: Tensor | None,
    offset: Tensor | None,
    *,
    leaky: bool,
) -> Tensor:
    """Return ln Σ_j exp b_ij."""
    logits = logits_of(votes_of(u, weight), query, precision, offset)
    if leaky:
        logits = torch.cat([torch.zeros_like(logits[..., :1]), logits], dim=-1)
    return logits.logsumexp(-1)


def votes_of(u: Children, weight: Weight) -> Float[Tensor, "batch in_caps out_caps dim"]:
    """Return the votes û_ij = W_ijᵀ u_i; of matrix poses û = u W, flattened."""
    if u.ndim == 3:
        return torch.einsum("bic,icjd->bijd", u, weight)
    return torch.einsum("birc,icjd->bijrd", u, weight).flatten(3)


def logits_of(
    votes: Float[Tensor, "batch in_caps out_caps dim"],
    query: Poses | None,
    precision: Poses | None,
    offset: PerParent | None,
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
    logits: Float[Tensor, "*batch out_caps"], normaliser: Float[Tensor, "*batch"] | None, leaky: bool
) -> Float[Tensor, "*batch out_caps"]:
    """Return c_ij: the softmax over parents, or exp(b_ij − Z_i)."""
    if normaliser is not None:
        return (logits - normaliser[..., None]).exp()
    return softmax_over_parents(logits, leaky)


def _uniform(u: Tensor, weight: Tensor, activations: Tensor | None, leaky: bool) -> Moments:
    """Return the moments where all logits are 0: a matrix product."""
    share = 1 / (weight.shape[2] + leaky)
    total = u.new_full(u.shape[:1], u.shape[1])
    if activations is not None:
        total = activations.sum(1)
        u = activations.reshape(*activations.shape, *[1] * (u.ndim - 2)) * u
    count = total[:, None].expand(-1, weight.shape[2])
    return Moments(share * count, share * sum_of_votes(u, weight), None)


def _is_plain(tensors: tuple[Tensor | None, ...], backend: str) -> bool:
    u = tensors[0]
    assert u is not None
    if backend == "reference" or torch.compiler.is_compiling():
        return True
    if backend == "chunked":
        return False
    one_sample = len(u) == 1 and u.device.type == "cpu"
    return one_sample or not dispatch.may_stand_in(*(x for x in tensors if x is not None))


def _in_one_dtype(tensors: tuple[Tensor | None, ...]) -> tuple[Any, ...]:
    u, weight, *others = tensors
    assert u is not None
    assert weight is not None
    dtype = torch.promote_types(torch.promote_types(u.dtype, weight.dtype), torch.float32)
    return (u.to(dtype), weight.to(dtype), *(None if x is None else x.to(dtype) for x in others))


def _check(
    name: str,
    u: Tensor,
    weight: Tensor,
    query: Tensor | None,
    precision: Tensor | None,
    offset: Tensor | None,
    activations: Tensor | None = None,
    normaliser: Tensor | None = None,
    *,
    leaky: bool,
    backend: str,
) -> None:
    """Refuse what cannot be computed, in one line."""
    if backend not in ("auto", *AGREE_BACKENDS):
        raise ValueError(f"{name}: backend {backend!r} is none of {', '.join(('auto', *AGREE_BACKENDS))}")
    if u.ndim not in {3, 4} or weight.ndim != 4 or (u.shape[1], u.shape[-1]) != weight.shape[:2]:
        raise ValueError(
            f"{name}: u {tuple(u.shape)} must be (batch, in_caps, in_dim) or (batch, in_caps, rows, in_dim), and "
            f"weight {tuple(weight.shape)} (in_caps, in_dim, out_caps, out_dim)"
        )
    batch, out_caps = u.shape[0], weight.shape[2]  # not len(u): an exported batch size is a symbol
    dim = weight.shape[3] * (u.shape[2] if u.ndim == 4 else 1)
    optional = {
        "query": (query, (batch, out_caps, dim)),
        "precision": (precision, (batch, out_caps, dim)),
        "offset": (offset, (batch, out_caps)),
        "activations": (activations, (batch, u.shape[1])),
        "normaliser": (normaliser, (batch, u.shape[1])),
    }
    for what, (tensor, shape) in optional.items():
        if tensor is not None and tensor.shape != shape:
            raise ValueError(f"{name}: {what} {tuple(tensor.shape)} must be {shape}")
    tensors = [x for x in (u, weight, query, precision, offset, activations, normaliser) if x is not None]
    if not all(x.is_floating_point() for x in tensors) or len({x.device for x in tensors}) != 1:
        found = ", ".join(f"{x.dtype} on {x.device}" for x in tensors)
        raise ValueError(f"{name}: tensors must be floating-point and on one device; they are {found}")
    if leaky and normaliser is not None:
        raise ValueError(f"{name}: leaky has no effect on a given normaliser; give one of them")
    for what, tensor, low, high in (("precision", precision, 0, None), ("activations", activations, 0, 1)):
        if tensor is not None and tensor.numel() and _has_values(tensor):
            least, most = (float(x) for x in tensor.detach().aminmax())
            if least < low or (high is not None and most > high):
                limits = f"at least {low}" if high is None else f"in [{low}, {high}]"
                raise ValueError(f"{name}: {what} from {least:.3g} to {most:.3g} must be {limits}")


def _has_values(tensor: Tensor) -> bool:
    """Return whether looking at the numbers is possible and free: on a CPU, and no operators are traced."""
    if torch.compiler.is_compiling():
        return False
    return tensor.device.type == "cpu" and dispatch.may_stand_in(tensor)
