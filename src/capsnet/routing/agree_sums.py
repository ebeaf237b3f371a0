"""Gradients of passes over the same votes, added up in place; and the sum of votes without couplings.

A routing makes several passes over the same u and W. Each would have gradients of its own, as large as u and W, which
autograd adds. `share_gradients` gives the passes one place to add to.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from capsnet._support import dispatch
from capsnet.routing.agree_reference import Children, Poses, Weight

Scale = Float[Tensor, "in_caps out_caps"]

#: Children whose part of a sum is made together; their scaled W is a copy.
_CHILDREN = 64


class Gradients:
    """The gradients of u and W that the passes of one routing have added up so far, in one backward pass."""

    def __init__(self) -> None:
        self.of: tuple[Tensor, Tensor] | None = None
        self._task = -1

    def place(self) -> tuple[Tensor, Tensor] | None:
        """Return where to add; None in a backward pass that has not begun to add."""
        task = torch._C._current_graph_task_id()
        if task != self._task:  # what an earlier backward pass left: it asked for no gradients of u and W
            self.of, self._task = None, task
        return self.of

    def take(self) -> tuple[Tensor | None, Tensor | None]:
        """Return the sums, and forget them."""
        found, self.of = self.place(), None
        return (None, None) if found is None else found


class _Share(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gradients: Gradients, u: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        ctx.gradients = gradients
        ctx.set_materialize_grads(False)
        return u.view_as(u), weight.view_as(weight)

    @staticmethod
    def backward(ctx: Any, *others: Tensor | None) -> tuple[Tensor | None, ...]:
        summed = ctx.gradients.take()
        return None, *(
            b if a is None else a if b is None else a + b for a, b in zip(others, summed, strict=True)
        )


def share_gradients(u: Children, weight: Weight) -> tuple[Children, Weight]:
    """Return u and W for several passes of one routing: the gradients of all passes are added up in place.

    Passes that a fast backend computes add to one pair of tensors. Others are added by autograd, as always.
    """
    if (
        torch.compiler.is_compiling()
        or not torch.is_grad_enabled()
        or not (u.requires_grad and weight.requires_grad)
        or not dispatch.may_stand_in(u, weight)
    ):
        return u, weight
    gradients = Gradients()
    shared: tuple[Tensor, Tensor] = _Share.apply(gradients, u, weight)  # type: ignore[no-untyped-call]
    for x in shared:
        x.capsnet_gradients = gradients  # type: ignore[attr-defined]
    return shared


def shared_gradients(u: Tensor, weight: Tensor) -> Gradients | None:
    """Return where the gradients of u and W are added up, if they come from one `share_gradients`."""
    found = getattr(u, "capsnet_gradients", None)
    return found if found is getattr(weight, "capsnet_gradients", None) else None


def plain_sum_of_votes(u: Children, weight: Weight, scale: Scale | None = None) -> Poses:
    """Return Σ_i scale_ij û_ij as one product."""
    if scale is not None:
        weight = weight * scale[:, None, :, None]
    if u.ndim == 3:
        return torch.einsum("bic,icjd->bjd", u, weight)
    return torch.einsum("birc,icjd->bjrd", u, weight).flatten(2)


def sum_of_votes(u: Children, weight: Weight, scale: Scale | None = None) -> Poses:
    """Return Σ_i scale_ij û_ij (scale: 1 if None): a plain matrix product, which needs no votes."""
    given = [x for x in (u, weight, scale) if x is not None]
    if torch.compiler.is_compiling() or not dispatch.may_stand_in(*given):
        with dispatch.without_autocast(u.device):
            return plain_sum_of_votes(u, weight, scale)
    found: Tensor = _SumOfVotes.apply(shared_gradients(u, weight), u, weight, scale)  # type: ignore[no-untyped-call]
    return found


class _SumOfVotes(torch.autograd.Function):
    """In parts: no copies of W, and of its gradient, of their full size."""

    @staticmethod
    def forward(
        ctx: Any, gradients: Gradients | None, u: Tensor, weight: Tensor, scale: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(u, weight, scale)
        ctx.gradients = gradients
        total = u.new_zeros(_samples(u), weight[0, 0].numel())
        for part in _parts(u):
            total.addmm_(_flat(u[:, part]), _scaled(weight[part], scale, part))
        rows, (_, _, parents, dim) = u.shape[2:-1].numel(), weight.shape
        return total.view(len(u), rows, parents, dim).transpose(1, 2).reshape(len(u), parents, rows * dim)

    @staticmethod
    def backward(ctx: Any, dsum: Tensor) -> tuple[Tensor | None, ...]:
        u, weight, scale = ctx.saved_tensors
        if dispatch.backward_needs_operators(dsum):
            plain = partial(dispatch.plain_gradients, plain_sum_of_votes, ctx.saved_tensors, dsum)
            return None, *plain(ctx.needs_input_grad[1:])
        gradients = ctx.gradients
        place = None if gradients is None else gradients.place()
        du, dweight = place or (x.new_zeros(x.shape) for x in (u, weight))  # contiguous, as the kernels add
        dscale: Any = None if scale is None else torch.empty_like(scale)
        rows, (_, _, parents, dim) = u.shape[2:-1].numel(), weight.shape
        ds = dsum.reshape(len(u), parents, rows, dim).transpose(1, 2).reshape(_samples(u), parents * dim)
        for part in _parts(u):
            du[:, part] += _unflat(ds @ _scaled(weight[part], scale, part).T, u[:, part])
            dw = (_flat(u[:, part]).T @ ds).view_as(weight[part])
            if scale is not None:
                dscale[part] = (dw * weight[part]).sum((1, 3))
                dw *= scale[part, None, :, None]
            dweight[part] += dw
        if gradients is None:
            return None, du, dweight, dscale
        gradients.of = (du, dweight)
        return None, None, None, dscale


def _samples(u: Tensor) -> int:
    """Return the number of vectors of a child: samples, and rows of a matrix."""
    return u.shape[0] * u.shape[2:-1].numel()


def _parts(u: Tensor) -> list[slice]:
    return [slice(at, at + _CHILDREN) for at in range(0, u.shape[1], _CHILDREN)]


def _flat(u: Tensor) -> Tensor:
    """Return children beside each other, (samples · rows, in_caps · in_dim)."""
    return (u if u.ndim == 3 else u.transpose(1, 2)).reshape(_samples(u), u.shape[1] * u.shape[-1])


def _unflat(flat: Tensor, like: Tensor) -> Tensor:
    """Return the inverse of `_flat`."""
    if like.ndim == 3:
        return flat.view(like.shape)
    batch, children, rows, in_dim = like.shape
    return flat.view(batch, rows, children, in_dim).transpose(1, 2)


def _scaled(weight: Tensor, scale: Tensor | None, part: slice) -> Tensor:
    """Return W as (in_caps · in_dim, out_caps · out_dim)."""
    return (weight if scale is None else weight * scale[part, None, :, None]).reshape(
        weight.shape[:2].numel(), -1
    )
