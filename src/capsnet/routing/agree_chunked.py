"""`agree` in plain PyTorch without storing the votes: for any device and dtype.

The votes of a few children are made, used and dropped. Forward and backward are one pass each over the children. In
here the children are the first axis: their votes are then one batched matrix product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from capsnet._support import dispatch
from capsnet.routing import backends

Optional = Tensor | None


def moments(
    plain: Callable[..., Any], tensors: tuple[Optional, ...], leaky: bool
) -> tuple[Tensor, Tensor, Optional]:
    """Return count, first and second moments; plain: the reference, for gradients that are differentiated again."""
    count, first, second = _Agree.apply(plain, leaky, *tensors)  # type: ignore[no-untyped-call]
    return count, first, second


def log_normaliser(plain: Callable[..., Any], tensors: tuple[Optional, ...], leaky: bool) -> Tensor:
    """Return ln Σ_j exp b_ij; plain as in `moments`."""
    z: Tensor = _LogNormaliser.apply(plain, leaky, *tensors)  # type: ignore[no-untyped-call]
    return z


class _Agree(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, plain: Callable[..., Any], leaky: bool, *tensors: Optional) -> tuple[Optional, ...]:
        u, weight, query, precision, offset, activations, normaliser = tensors
        ctx.save_for_backward(*tensors)
        ctx.plain, ctx.leaky = plain, leaky
        assert u is not None
        assert weight is not None
        count = u.new_zeros(len(u), weight.shape[2])
        first = u.new_zeros(len(u), weight.shape[2], _dim(u, weight))
        second = None if precision is None else torch.zeros_like(first)
        for b, i in _parts(u, weight):
            votes = _votes(u[b, i], weight[i])
            logits = _logits(votes, _at(query, b), _at(precision, b), _at(offset, b))
            shares = _couplings(logits, _children_first(normaliser, b, i), leaky)
            if activations is not None:
                shares = shares * _children_first(activations, b, i)
            count[b] += shares.sum(0)
            weighted = votes * shares[..., None]
            first[b] += weighted.sum(0)
            if second is not None:
                second[b] += weighted.mul_(votes).sum(0)
        return count, first, second

    @staticmethod
    def backward(ctx: Any, *gradients: Optional) -> tuple[Optional, ...]:
        tensors = ctx.saved_tensors
        given = tuple(x for x in gradients if x is not None)
        if any(dispatch.backward_needs_operators(x) for x in given):
            plain = partial(_all_but_none, partial(ctx.plain, leaky=ctx.leaky))
            return None, None, *dispatch.plain_gradients(plain, tensors, given, ctx.needs_input_grad[2:])
        u, weight, query, precision, offset, activations, normaliser = tensors
        dcount, dfirst, dsecond = gradients
        found = _Gradients(u, weight, query, precision, offset)
        dactivations, dnormaliser = _empty_like(activations), _empty_like(normaliser)
        with dispatch.without_autocast(u.device):
            for b, i in _parts(u, weight):
                votes = _votes(u[b, i], weight[i])
                logits = _logits(votes, _at(query, b), _at(precision, b), _at(offset, b))
                couplings = _couplings(logits, _children_first(normaliser, b, i), ctx.leaky)
                along = _at(dfirst, b) if dsecond is None else votes * dsecond[b] + _at(dfirst, b)
                dshares = (votes * along).sum(-1) + _at(dcount, b)  # g
                shares = couplings
                if activations is not None:
                    a = _children_first(activations, b, i)
                    shares = couplings * a
                    dactivations[b, i] = (couplings * dshares).sum(-1).T
                    dshares = dshares * a
                dlogits = couplings * dshares
                if normaliser is None:
                    dlogits = dlogits - couplings * dlogits.sum(-1, keepdim=True)
                else:
                    dnormaliser[b, i] = -dlogits.sum(-1).T
                if dsecond is not None:
                    along = along.addcmul_(votes, dsecond[b])
                found.add(b, i, votes, shares[..., None] * along, dlogits)
        return None, None, *found.all(), dactivations, dnormaliser


class _LogNormaliser(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, plain: Callable[..., Any], leaky: bool, *tensors: Optional) -> Tensor:
        u, weight, query, precision, offset = tensors
        ctx.save_for_backward(*tensors)
        ctx.plain, ctx.leaky = plain, leaky
        assert u is not None
        assert weight is not None
        z = u.new_empty(u.shape[:2])
        for b, i in _parts(u, weight):
            logits = _logits(_votes(u[b, i], weight[i]), _at(query, b), _at(precision, b), _at(offset, b))
            z[b, i] = _with_none(logits, leaky).logsumexp(-1).T
        return z

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Optional, ...]:
        tensors, (dz,) = ctx.saved_tensors, gradients
        if dispatch.backward_needs_operators(dz):
            plain = partial(ctx.plain, leaky=ctx.leaky)
            return None, None, *dispatch.plain_gradients(plain, tensors, dz, ctx.needs_input_grad[2:])
        u, weight, query, precision, offset = tensors
        found = _Gradients(u, weight, query, precision, offset)
        with dispatch.without_autocast(u.device):
            for b, i in _parts(u, weight):
                votes = _votes(u[b, i], weight[i])
                logits = _logits(votes, _at(query, b), _at(precision, b), _at(offset, b))
                dlogits = _couplings(logits, None, ctx.leaky) * dz[b, i].T[..., None]
                found.add(b, i, votes, None, dlogits)
        return None, None, *found.all()


class _Gradients:
    """The gradients of what the votes and logits are made from, part by part."""

    def __init__(
        self, u: Tensor, weight: Tensor, query: Optional, precision: Optional, offset: Optional
    ) -> None:
        self.u, self.weight, self.query, self.precision = u, weight, query, precision
        self.du, self.dweight = torch.empty_like(u), torch.zeros_like(weight)
        self.dquery, self.dprecision, self.doffset = (
            None if x is None else torch.zeros_like(x) for x in (query, precision, offset)
        )

    def add(self, b: slice, i: slice, votes: Tensor, dvotes: Optional, dlogits: Tensor) -> None:
        """Add a part's share, given its votes' own gradient and that of its logits."""
        if self.doffset is not None:
            self.doffset[b] += dlogits.sum(0)
        dlogits = dlogits[..., None]
        slope = _at(self.query, b)  # of the logits along the votes: Q − Λ û
        if self.precision is not None:
            bent = votes * self.precision[b]
            slope = -bent if slope is None else slope - bent
        if slope is not None:
            through = dlogits * slope
            dvotes = through if dvotes is None else dvotes.add_(through)
        if self.dquery is not None or self.dprecision is not None:
            weighted = votes * dlogits
            if self.dquery is not None:
                self.dquery[b] += weighted.sum(0)
            if self.dprecision is not None:
                self.dprecision[b] -= weighted.mul_(votes).sum(0) / 2
        if dvotes is None:
            self.du[b, i] = 0
            return
        u, w = self.u[b, i], self.weight[i].flatten(2)
        if u.ndim == 4:  # (children, batch, parents, rows · columns) → rows beside the samples
            dvotes = dvotes.reshape(*dvotes.shape[:3], u.shape[2], -1).transpose(2, 3).flatten(1, 2)
            u = u.transpose(0, 1).flatten(1, 2)
        else:
            u = u.transpose(0, 1)
        dvotes = dvotes.flatten(2)
        du = dvotes @ w.transpose(1, 2)
        self.du[b, i] = du.reshape(len(du), -1, *self.u.shape[2:]).transpose(0, 1)
        self.dweight[i] += (u.transpose(1, 2) @ dvotes).view_as(self.dweight[i])

    def all(self) -> tuple[Optional, ...]:
        """Return the gradients of u, weight, query, precision and offset."""
        return self.du, self.dweight, self.dquery, self.dprecision, self.doffset


def _votes(u: Tensor, weight: Tensor) -> Tensor:
    """Return the votes, (children, batch, parents, dim)."""
    samples, children, *rows, _ = u.shape
    votes = u.transpose(0, 1).reshape(children, -1, u.shape[-1]) @ weight.flatten(2)
    votes = votes.view(children, samples, *rows, *weight.shape[2:])
    return votes.transpose(2, 3).flatten(3) if rows else votes


def _logits(votes: Tensor, query: Optional, precision: Optional, offset: Optional) -> Tensor:
    slope = query
    if precision is not None:
        bent = votes * (precision / -2)
        slope = bent if query is None else bent.add_(query)
    if slope is None:
        return votes.new_zeros(votes.shape[:3]) if offset is None else offset.expand(votes.shape[:3])
    logits = (votes * slope).sum(-1)
    return logits if offset is None else logits + offset


def _couplings(logits: Tensor, normaliser: Optional, leaky: bool) -> Tensor:
    if normaliser is not None:
        return (logits - normaliser).exp()
    return _with_none(logits, leaky).softmax(-1)[..., int(leaky) :]


def _with_none(logits: Tensor, leaky: bool) -> Tensor:
    return torch.cat([torch.zeros_like(logits[..., :1]), logits], -1) if leaky else logits


def _parts(u: Tensor, weight: Tensor) -> Iterator[tuple[slice, slice]]:
    """Yield slices of samples and of children whose votes fit in the budget of the device."""
    # Half of what dynamic routing takes: a backward pass holds some eight tensors of that size.
    budget = backends.CPU_VOTES // 2 if u.device.type == "cpu" else backends.ACCELERATOR_VOTES // 2
    most = max(1, budget // max(1, weight.shape[2] * _dim(u, weight) * u.element_size()))
    samples = max(1, min(len(u), most))
    children = max(1, most // samples)
    for b in range(0, len(u), samples):
        for i in range(0, u.shape[1], children):
            yield slice(b, b + samples), slice(i, i + children)


def _dim(u: Tensor, weight: Tensor) -> int:
    return weight.shape[3] * (u.shape[2] if u.ndim == 4 else 1)


def _at(x: Optional, part: slice) -> Any:
    return None if x is None else x[part]


def _children_first(x: Optional, b: slice, i: slice) -> Any:
    return None if x is None else x[b, i].T[..., None]


def _empty_like(x: Optional) -> Any:
    return None if x is None else torch.empty_like(x)


def _all_but_none(function: Callable[..., Any], *tensors: Optional) -> tuple[Tensor, ...]:
    return tuple(x for x in function(*tensors) if x is not None)
