"""`agree` in plain PyTorch without storing the votes: for any device and dtype.

The votes of a few children are made, used and dropped. Forward and backward are one pass each over the children. In
here the children are the first axis: their votes are then one batched matrix product.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from capsnet.routing import backends
from capsnet.routing.agree_reference import Inputs

Optional = Tensor | None

TAKES = "floating-point tensors"


def is_available(u: Tensor) -> bool:
    """Return whether u is floating-point; any device will do."""
    return u.is_floating_point()


def forward(given: Inputs, leaky: bool, wants_log_sums: bool) -> tuple[Tensor, ...]:
    """Return the moments or log-sums; see `capsnet.routing.agree_backends`."""
    u, weight = given.u, given.weight
    count = u.new_zeros(u.shape[0], weight.shape[2])
    first = u.new_zeros(*count.shape, given.dim)
    second, log_sums = torch.zeros_like(first), u.new_empty(u.shape[:2])
    for b, i in _parts(given):
        votes = _votes(given, b, i)
        logits = _logits(given, b, votes)
        if wants_log_sums:
            log_sums[b, i] = _with_none(logits, leaky).logsumexp(-1).T
            continue
        shares = _couplings(logits, _children_first(given.normaliser, b, i), leaky)
        if given.activations is not None:
            shares = shares * _children_first(given.activations, b, i)
        count[b] += shares.sum(0)
        weighted = votes * shares[..., None]
        first[b] += weighted.sum(0)
        if given.precision is not None:
            second[b] += weighted.mul_(votes).sum(0)
    if wants_log_sums:
        return (log_sums,)
    return (count, first) if given.precision is None else (count, first, second)


def backward(
    gradients: tuple[Tensor, ...],
    given: Inputs,
    leaky: bool,
    wants_log_sums: bool,
    place: tuple[Tensor, Tensor] | None = None,
) -> tuple[Optional, ...]:
    """Return the gradients of all inputs but the centre."""
    found = _Gradients(given, place)
    dactivations, dnormaliser = _empty_like(given.activations), _empty_like(given.normaliser)
    for b, i in _parts(given):
        votes = _votes(given, b, i)
        couplings = _couplings(_logits(given, b, votes), _children_first(given.normaliser, b, i), leaky)
        if wants_log_sums:
            found.add(b, i, votes, None, couplings * gradients[0][b, i].T[..., None])
            continue
        dcount, dfirst, *more = (x[b] for x in gradients)
        along = votes * more[0] + dfirst if more else dfirst
        dshares = (votes * along).sum(-1) + dcount  # g
        shares = couplings
        if given.activations is not None:
            a = _children_first(given.activations, b, i)
            shares = couplings * a
            dactivations[b, i] = (couplings * dshares).sum(-1).T
            dshares = dshares * a
        dlogits = couplings * dshares
        if given.normaliser is None:
            dlogits = dlogits - couplings * dlogits.sum(-1, keepdim=True)
        else:
            dnormaliser[b, i] = -dlogits.sum(-1).T
        if more:
            along = along.addcmul_(votes, more[0])
        found.add(b, i, votes, shares[..., None] * along, dlogits)
    return *found.all(), dactivations, dnormaliser


class _Gradients:
    """The gradients of what the votes and logits are made from, part by part."""

    def __init__(self, given: Inputs, place: tuple[Tensor, Tensor] | None) -> None:
        self.given = given
        self.du, self.dweight = place or (
            given.u.new_zeros(given.u.shape),
            given.weight.new_zeros(given.weight.shape),
        )
        self.dquery, self.dprecision, self.doffset = (
            None if x is None else torch.zeros_like(x) for x in (given.query, given.precision, given.offset)
        )

    def add(self, b: slice, i: slice, votes: Tensor, dvotes: Optional, dlogits: Tensor) -> None:
        """Add a part's share, given its votes' own gradient and that of its logits."""
        given = self.given
        if self.doffset is not None:
            self.doffset[b] += dlogits.sum(0)
        dlogits = dlogits[..., None]
        slope = _at(given.query, b)  # of the logits along the votes: Q − Λ û
        if given.precision is not None:
            bent = votes * given.precision[b]
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
            return
        u, w = given.u[b, i], given.weight[i].flatten(2)
        if u.ndim == 4:  # (children, batch, parents, rows · columns) → rows beside the samples
            dvotes = dvotes.reshape(*dvotes.shape[:3], u.shape[2], -1).transpose(2, 3).flatten(1, 2)
            u = u.transpose(0, 1).flatten(1, 2)
        else:
            u = u.transpose(0, 1)
        dvotes = dvotes.flatten(2)
        du = dvotes @ w.transpose(1, 2)
        self.du[b, i] += du.reshape(len(du), -1, *given.u.shape[2:]).transpose(0, 1)
        self.dweight[i] += (u.transpose(1, 2) @ dvotes).view_as(self.dweight[i])

    def all(self) -> tuple[Optional, ...]:
        """Return the gradients of u, weight, query, precision and offset."""
        return self.du, self.dweight, self.dquery, self.dprecision, self.doffset


def _votes(given: Inputs, b: slice, i: slice) -> Tensor:
    """Return the votes less the centre, (children, batch, parents, dim)."""
    u, weight = given.u[b, i], given.weight[i]
    samples, children, *rows, _ = u.shape
    votes = u.transpose(0, 1).reshape(children, -1, u.shape[-1]) @ weight.flatten(2)
    votes = votes.view(children, samples, *rows, *weight.shape[2:])
    if rows:
        votes = votes.transpose(2, 3).flatten(3)
    return votes if given.centre is None else votes - given.centre[b]


def _logits(given: Inputs, b: slice, votes: Tensor) -> Tensor:
    query, precision, offset = (_at(x, b) for x in (given.query, given.precision, given.offset))
    slope = query
    if precision is not None:
        bent = votes * (precision / -2)
        slope = bent if query is None else bent.add_(query)
    if slope is None:
        return votes.new_zeros(votes.shape[:3]) if offset is None else offset.expand(votes.shape[:3])
    logits: Tensor = (votes * slope).sum(-1)
    return logits if offset is None else logits + offset


def _couplings(logits: Tensor, normaliser: Optional, leaky: bool) -> Tensor:
    if normaliser is not None:
        return (logits - normaliser).exp()
    return _with_none(logits, leaky).softmax(-1)[..., int(leaky) :]


def _with_none(logits: Tensor, leaky: bool) -> Tensor:
    return torch.cat([torch.zeros_like(logits[..., :1]), logits], -1) if leaky else logits


def _parts(given: Inputs) -> Iterator[tuple[slice, slice]]:
    """Yield slices of samples and of children whose votes fit in the budget of the device."""
    u = given.u
    # Half of what dynamic routing takes: a backward pass holds some eight tensors of that size.
    budget = backends.CPU_VOTES // 2 if u.device.type == "cpu" else backends.ACCELERATOR_VOTES // 2
    most = max(1, budget // max(1, given.weight.shape[2] * given.dim * u.element_size()))
    samples = max(1, min(len(u), most))
    children = max(1, most // samples)
    for b in range(0, len(u), samples):
        for i in range(0, u.shape[1], children):
            yield slice(b, b + samples), slice(i, i + children)


def _at(x: Optional, part: slice) -> Any:
    return None if x is None else x[part]


def _children_first(x: Optional, b: slice, i: slice) -> Any:
    return None if x is None else x[b, i].T[..., None]


def _empty_like(x: Optional) -> Any:
    return None if x is None else torch.empty_like(x)
