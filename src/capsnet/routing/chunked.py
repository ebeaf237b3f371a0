"""Routing that never stores the votes, in plain PyTorch: for any device and dtype.

All iterations' logits are a dot product of the votes with one accumulated vector, b^t = û·V^t with
V^t = Σ_{τ<t} v^τ, so a few children at a time are enough: their votes are computed again in each iteration,
and only the sum s over the children survives. The state is O(r · batch · out_caps · out_dim).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from capsnet.functional import squash
from capsnet.routing.backends import (
    Batched,
    Bias,
    Parents,
    Sums,
    Weight,
    chunks_of_children,
    compute_dtype,
)
from capsnet.routing.reference import Gradient, softmax_over_parents

TAKES = "floating-point tensors"


def is_available(u: Batched) -> bool:
    """Return whether u is floating-point; any device will do."""
    return u.is_floating_point()


def forward(
    u: Batched, weight: Weight, bias: Bias | None, iterations: int, leaky: bool
) -> tuple[Parents, Sums]:
    """Return the parents v and the sums s of every iteration; see `capsnet.routing.backends`."""
    out_dtype, dtype = torch.promote_types(u.dtype, weight.dtype), compute_dtype(u, weight)
    s_all = u.new_empty((iterations, u.shape[0], *weight.shape[2:]), dtype=dtype)
    total = torch.zeros_like(s_all[0])  # V
    for t in range(iterations):
        s = torch.zeros_like(total) if bias is None else bias.to(dtype).expand_as(total).clone()
        for children in chunks_of_children(u, weight):
            u_k, w_k = u[:, children].to(dtype), weight[children].to(dtype)
            if t == 0:  # uniform couplings leave a plain matrix product
                s += torch.einsum("bic,icjd->bjd", u_k, w_k) / (weight.shape[2] + leaky)
            else:
                votes = torch.einsum("bic,icjd->bijd", u_k, w_k)
                couplings = softmax_over_parents(torch.einsum("bijd,bjd->bij", votes, total), leaky)
                s += torch.einsum("bij,bijd->bjd", couplings, votes)
        s_all[t] = s
        total += squash(s)
    return squash(s_all[-1]).to(out_dtype), s_all


def backward(
    dv: Parents,
    u: Batched,
    weight: Weight,
    bias: Bias | None,
    s_all: Sums,
    iterations: int,
    leaky: bool,
    gradient: Gradient,
) -> tuple[Batched, Weight, Bias | None]:
    """Return the gradients of u, W and the bias; see `capsnet.routing.backends`.

    One reduction over the children for each iteration but the first, last to first, then one pass that
    writes the gradients.
    """
    dtype = s_all.dtype
    totals = torch.zeros_like(s_all)  # V^t, the sum of the outputs before iteration t
    for t in range(1, iterations):  # no cumsum: CUDA's promises no order
        totals[t] = totals[t - 1] + squash(s_all[t - 1])
    ds_all = torch.zeros_like(s_all)
    last = iterations - 1
    ds_all[last] = squash_backward(s_all[last], dv.to(dtype))
    if gradient == "all":
        through_logits = torch.zeros_like(totals[0])  # Σ_t G^t: every earlier output gets it
        for t in range(last, 0, -1):
            for children in chunks_of_children(u, weight):
                votes = torch.einsum("bic,icjd->bijd", u[:, children].to(dtype), weight[children].to(dtype))
                _, dlogits = _couplings_backward(votes, totals[t], ds_all[t], leaky)
                through_logits += torch.einsum("bij,bijd->bjd", dlogits, votes)
            ds_all[t - 1] = squash_backward(s_all[t - 1], through_logits)

    du, dweight = u.new_empty(u.shape), weight.new_empty(weight.shape)
    for children in chunks_of_children(u, weight):
        u_k, w_k = u[:, children].to(dtype), weight[children].to(dtype)
        votes = torch.einsum("bic,icjd->bijd", u_k, w_k)
        dvotes = torch.zeros_like(votes)
        for t in range(iterations) if gradient == "all" else (last,):
            couplings, dlogits = _couplings_backward(votes, totals[t], ds_all[t], leaky)
            dvotes += couplings[..., None] * ds_all[t][:, None]
            if gradient == "all":
                dvotes += dlogits[..., None] * totals[t][:, None]
        du[:, children] = torch.einsum("bijd,icjd->bic", dvotes, w_k).to(u.dtype)
        dweight[children] = torch.einsum("bic,bijd->icjd", u_k, dvotes).to(weight.dtype)
    return du, dweight, None if bias is None else ds_all.sum((0, 1)).to(bias.dtype)


def squash_backward(s: Float[Tensor, "*n dim"], dv: Float[Tensor, "*n dim"]) -> Float[Tensor, "*n dim"]:
    """Return the gradient of squash at s, applied to dv; 0 at s = 0.

    v = s·f(n) with n = ‖s‖ and f = n / (1 + n²), hence ds = f·dv + s·(s·dv)·f′/n, f′ = (1 − n²) / (1 + n²)².
    """
    n = torch.linalg.vector_norm(s, dim=-1, keepdim=True)
    along = (s * dv).sum(-1, keepdim=True) / n.clamp_min(torch.finfo(n.dtype).tiny)
    ds: Tensor = dv * (n / (1 + n * n)) + s * (along * (1 - n * n) / (1 + n * n) ** 2)
    return ds


def _couplings_backward(votes: Tensor, total: Tensor, ds: Tensor, leaky: bool) -> tuple[Tensor, Tensor]:
    """Return the couplings c and the logits' gradient c ⊙ (û·ds − Σ_j c û·ds), both (batch, in_caps, out_caps)."""
    couplings = softmax_over_parents(torch.einsum("bijd,bjd->bij", votes, total), leaky)
    dlogits = couplings * torch.einsum("bijd,bjd->bij", votes, ds)
    return couplings, dlogits - couplings * dlogits.sum(-1, keepdim=True)
