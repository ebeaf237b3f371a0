"""The forward reduction for a single sample, whose block would leave 15 lanes empty: lanes are columns of W here.

Every number comes from the same operations in the same order as in a lane of `kernels.sum_over_children`, so a
sample has the same bits whether it is routed alone or in a batch.

A sample that is alone does little arithmetic on each number of W, and most of its time goes into fetching W. Its
votes are a small part of W's size, so where they fit in the second-level cache W is read only once (`first_of_one`,
`next_of_one`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import boolean, float32, int64, types

from capsnet.compiled import compiled
from capsnet.routing.simd import LANES, broadcast, exp, fma, fma_number, load, number, splat, store, sub

_ZERO, _ONE = np.float32(0), np.float32(1)
_FLAT, _ROWS = float32[::1], float32[:, ::1]


@compiled()
def _from_lane(lanes: Any, at: int, out: Any) -> None:
    for n in range(out.size):
        out[n] = lanes[at + n * LANES]


@compiled()
def _to_lane(numbers: Any, out: Any, at: int) -> None:
    for n in range(numbers.size):
        out[at + n * LANES] = numbers[n]


@compiled()
def _multiply_row(w: Any, w0: int, x: Any, depth: int, width: int, fresh: bool, out: Any) -> None:
    """`multiply` where x and out hold numbers."""
    n = 0
    while n + LANES <= width:
        s = splat(_ZERO) if fresh else load(out, n)
        p = w0 + n
        for k in range(depth):
            s = fma(load(w, p), broadcast(x, k), s)
            p += width
        store(out, n, s)
        n += LANES
    while n < width:
        sum_ = _ZERO if fresh else out[n]
        for k in range(depth):
            sum_ = fma_number(w[w0 + k * width + n], x[k], sum_)
        out[n] = sum_
        n += 1


@compiled()
def _exponentiate(logits: Any, parents: int, largest: Any, leaky: bool) -> Any:
    """Logits become e^(logit − largest), in place; returns 1 / their sum."""
    logits[parents] = _ZERO  # nobody's
    for j in range(0, parents + 1, LANES):
        store(logits, j, exp(sub(load(logits, j), splat(largest))))
    z = logits[parents] if leaky else _ZERO
    for j in range(parents):
        z += logits[j]
    return _ONE / z


@compiled()
def _agree(votes: Any, v: Any, parents: int, dim: int, leaky: bool, c: Any, s: Any) -> None:
    """s += Σ_j c_j û_j for one child, whose votes are given; c is room to work in."""
    full = parents - parents % 4
    for j in range(0, full, 4):  # four sums at a time: each waits for its last addition
        l0, l1, l2, l3 = _ZERO, _ZERO, _ZERO, _ZERO
        for n in range(j * dim, (j + 1) * dim):
            n1, n2, n3 = n + dim, n + 2 * dim, n + 3 * dim
            l0 = fma_number(number(votes, n), number(v, n), l0)
            l1 = fma_number(number(votes, n1), number(v, n1), l1)
            l2 = fma_number(number(votes, n2), number(v, n2), l2)
            l3 = fma_number(number(votes, n3), number(v, n3), l3)
        c[j], c[j + 1], c[j + 2], c[j + 3] = l0, l1, l2, l3
    for j in range(full, parents):
        logit = _ZERO
        for n in range(j * dim, (j + 1) * dim):
            logit = fma_number(number(votes, n), number(v, n), logit)
        c[j] = logit
    largest = _ZERO if leaky else c[0]
    for j in range(parents):
        largest = max(largest, c[j])
    share = _exponentiate(c, parents, largest, leaky)
    for j in range(parents):
        coupling = c[j] * share
        n, end = j * dim, (j + 1) * dim
        while n + LANES <= end:
            store(s, n, fma(splat(coupling), load(votes, n), load(s, n)))
            n += LANES
        while n < end:
            s[n] = fma_number(coupling, votes[n], s[n])
            n += 1


@compiled()
def sum_for_one(
    u: Any,
    sample: int,
    w: Any,
    parents: int,
    dim: int,
    V: Any,
    at: int,
    uniform: bool,
    leaky: bool,
    child_lo: int,
    child_hi: int,
    out: Any,
) -> None:
    """Σ_i c_ij û_ij of one sample; V and out are in lanes, `at` is the sample's first number there."""
    in_dim, width = u.shape[2], parents * dim
    x, votes = np.empty(in_dim, np.float32), np.empty(width, np.float32)
    s, v = np.zeros(width, np.float32), np.empty(width, np.float32)
    c = np.zeros(parents + LANES, np.float32)
    _from_lane(V, at, v)
    for i in range(child_lo, child_hi):
        for k in range(in_dim):
            x[k] = u[sample, i, k]
        if uniform:
            _multiply_row(w, i * in_dim * width, x, in_dim, width, False, s)
            continue
        _multiply_row(w, i * in_dim * width, x, in_dim, width, True, votes)
        _agree(votes, v, parents, dim, leaky, c, s)
    _to_lane(s, out, at)


@compiled(types.void(float32[:, ::1], _FLAT, int64[::1], _ROWS, _ROWS))
def first_of_one(u: Any, w: Any, bounds: Any, votes: Any, out: Any) -> None:
    """The first iteration of a sample that is alone: Σ_i û_ij, the votes kept.

    Args:
        u, w: children (in_caps, in_dim), and W as flat numbers.
        bounds: part n has the children bounds[n] … bounds[n + 1] − 1.
        votes: (in_caps, out_caps · out_dim), overwritten.
        out: (parts, numbers in lanes); the first lane is overwritten.
    """
    in_dim, width = u.shape[1], votes.shape[1]
    s = np.empty(width, np.float32)
    for part in range(len(out)):
        s[:] = _ZERO
        for i in range(bounds[part], bounds[part + 1]):
            _multiply_row(w, i * in_dim * width, u[i], in_dim, width, True, votes[i])
            _multiply_row(w, i * in_dim * width, u[i], in_dim, width, False, s)
        _to_lane(s, out[part], 0)


@compiled(types.void(_ROWS, _FLAT, int64, int64, boolean, int64[::1], _ROWS))
def next_of_one(
    votes: Any,
    V: Any,
    parents: int,
    dim: int,
    leaky: bool,
    bounds: Any,
    out: Any,
) -> None:
    """A later iteration of a sample that is alone: Σ_i c_ij û_ij from the votes that `first_of_one` kept."""
    width = parents * dim
    s, v, c = np.empty(width, np.float32), np.empty(width, np.float32), np.zeros(parents + LANES, np.float32)
    _from_lane(V, 0, v)
    for part in range(len(out)):
        s[:] = _ZERO
        for i in range(bounds[part], bounds[part + 1]):
            _agree(votes[i], v, parents, dim, leaky, c, s)
        _to_lane(s, out[part], 0)
