"""One pass of agreement over the children, from which every routing is made: `agree`.

The plain form is the law. The fast forms never store the votes, and are compared with it.

    b_ij = k_j + û_ij · Q_j − ½ Σ_d Λ_jd û_ijd²        c_ij = softmax over parents of b_ij
    count_j = Σ_i a_i c_ij     first_j = Σ_i a_i c_ij û_ij     second_j = Σ_i a_i c_ij û_ij²

`agree_reference.py` has these equations in plain PyTorch, `agree_backends.py` the fast forms.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from capsnet._support import dispatch
from capsnet.routing import agree_backends, agree_reference
from capsnet.routing.agree_reference import (
    Children,
    Inputs,
    PerChild,
    PerParent,
    Poses,
    Weight,
    couplings_of,
    logits_of,
    votes_of,
)
from capsnet.routing.agree_sums import sum_of_votes
from capsnet.routing.backends import auto_is_reference, compute_dtype
from capsnet.routing.trace import Steps

#: Names for `agree(backend=…)`, besides "auto".
AGREE_BACKENDS = ("reference", *agree_backends.FAST)


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
    centre: Poses | None = None,
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
        centre: û − centre takes the place of û, in logits and moments, (batch, out_caps, dim); 0 if None. Moments about
            a centre near the mean keep their digits. It is a constant: no gradient flows to it.
        leaky: an extra logit of 0 in the softmax: a child may go to no parent.
        backend: "reference" stores the votes. Those that never do are "triton" for NVIDIA GPUs, "cpu" for CPUs, and
            "chunked" for any device. "auto" picks the first of them that can, and the reference where `route` does.

    Returns:
        Moments in the dtype of the computation.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit, activations outside [0, 1] or a negative precision
            (values are checked on CPUs), leaky with a normaliser, or an unknown backend.
    """
    if centre is not None:
        centre = centre.detach()
    tensors = (u, weight, query, precision, offset, activations, normaliser, centre)
    _check("agree", *tensors, leaky=leaky, backend=backend)
    with dispatch.without_autocast(u.device):
        given = _in_one_dtype(*tensors)
        if not _is_plain(given, backend) and all(x is None for x in (*given[2:5], *given[6:])):
            return _uniform(given, leaky)
        count, first, *second = _run(given, leaky, False, backend)
        return Moments(count, first, second[0] if second else None)


def log_normaliser(
    u: Children,
    weight: Weight,
    query: Poses | None = None,
    *,
    precision: Poses | None = None,
    offset: PerParent | None = None,
    centre: Poses | None = None,
    leaky: bool = False,
    backend: str = "auto",
) -> PerChild:
    """Sum each child's exponentiated logits over the parents: Z_i = ln Σ_j exp b_ij, (batch, in_caps).

    With it as the normaliser, `agree` has the couplings of the softmax. Convolutional capsules add up the windows that
    hold a child first. Arguments, gradients and errors are those of `agree`.
    """
    if centre is not None:
        centre = centre.detach()
    tensors = (u, weight, query, precision, offset, None, None, centre)
    _check("log_normaliser", *tensors, leaky=leaky, backend=backend)
    with dispatch.without_autocast(u.device):
        return _run(_in_one_dtype(*tensors), leaky, True, backend)[0]


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
    centre: Poses | None = None,
) -> None:
    """Append the logits and couplings of one pass, and the parents made from it, if steps are asked for."""
    if steps is not None:
        with dispatch.without_autocast(u.device):
            given = _in_one_dtype(u, weight, query, precision, offset, None, normaliser, centre)
            votes = votes_of(given.u, given.weight, given.centre)
            logits = logits_of(votes, given.query, given.precision, given.offset)
            steps.append((logits, couplings_of(logits, given.normaliser, False), outputs.detach()))


def _run(given: Inputs, leaky: bool, wants_log_sums: bool, backend: str) -> tuple[Tensor, ...]:
    if _is_plain(given, backend):
        return agree_reference.forward(given, leaky, wants_log_sums)
    return agree_backends.run(given, leaky, wants_log_sums, backend)


def _uniform(given: Inputs, leaky: bool) -> Moments:
    """Return the moments where all logits are 0: a matrix product."""
    u, weight, a = given.u, given.weight, given.activations
    share = 1 / (weight.shape[2] + leaky)
    total = u.new_full(u.shape[:1], u.shape[1])
    if a is not None:
        total = a.sum(1)
        u = a.reshape(*a.shape, *[1] * (u.ndim - 2)) * u
    count = total[:, None].expand(-1, weight.shape[2])
    return Moments(share * count, share * sum_of_votes(u, weight), None)


def _is_plain(given: Inputs, backend: str) -> bool:
    """Return whether the reference computes: it is asked for, or "auto" means it.

    A model is exported with the reference whatever its backend: other runtimes do not know our operators.
    """
    if backend == "reference":
        return True
    return (backend == "auto" or torch.compiler.is_compiling()) and auto_is_reference(*given)


def _in_one_dtype(u: Tensor, weight: Tensor, *others: Tensor | None) -> Inputs:
    dtype = compute_dtype(u, weight)
    return Inputs(u.to(dtype), weight.to(dtype), *(None if x is None else x.to(dtype) for x in others))


def _check(
    name: str,
    u: Tensor,
    weight: Tensor,
    query: Tensor | None,
    precision: Tensor | None,
    offset: Tensor | None,
    activations: Tensor | None,
    normaliser: Tensor | None,
    centre: Tensor | None,
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
        "centre": (centre, (batch, out_caps, dim)),
    }
    for what, (tensor, shape) in optional.items():
        if tensor is not None and tensor.shape != shape:
            raise ValueError(f"{name}: {what} {tuple(tensor.shape)} must be {shape}")
    tensors = [x for x in (u, weight, *(x for x, _ in optional.values())) if x is not None]
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
