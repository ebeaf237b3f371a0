"""Routing of a single sample, whose block would leave 15 lanes empty: lanes are columns of W here.

Every number comes from the same operations in the same order as in a lane of `kernels`, so a sample has the same
bits whether it is routed alone or in a batch.

A sample that is alone does little arithmetic on each number of W, and most of its time goes into fetching W. Its
votes are a small part of W's size, so where they fit in the second-level cache they are kept, and W is read only once
forward (`first_of_one`, `next_of_one`) and twice backward (`votes_of_one`, `next_of_one`, `gradients_of_one`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import boolean, float32, int64, types

from capsnet._support.numba_compiler import compiled
from capsnet.routing.cpu.simd import (
    LANES,
    add,
    broadcast,
    exp,
    fma,
    fma_number,
    load,
    mul,
    number,
    splat,
    store,
    sub,
)

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
def _multiply_transposed_row(w: Any, w0: int, x: Any, depth: int, width: int, out: Any) -> None:
    """`multiply_transposed` where x and out hold numbers."""
    full = depth - depth % 4
    for k in range(0, full, 4):  # four sums at a time: each waits for its last addition
        s0, s1, s2, s3 = _ZERO, _ZERO, _ZERO, _ZERO
        p = w0 + k * width
        for n in range(width):
            s0 = fma_number(number(w, p + n), number(x, n), s0)
            s1 = fma_number(number(w, p + width + n), number(x, n), s1)
            s2 = fma_number(number(w, p + 2 * width + n), number(x, n), s2)
            s3 = fma_number(number(w, p + 3 * width + n), number(x, n), s3)
        out[k], out[k + 1], out[k + 2], out[k + 3] = s0, s1, s2, s3
    for k in range(full, depth):
        s0 = _ZERO
        for n in range(width):
            s0 = fma_number(number(w, w0 + k * width + n), number(x, n), s0)
        out[k] = s0


@compiled()
def _outer_row(x: Any, y: Any, fresh: bool, out: Any, o0: int) -> None:
    """out[k, n] = x[k] · y[n], or += where not fresh."""
    for k in range(x.size):
        n, o = 0, o0 + k * y.size
        while n + LANES <= y.size:
            product = mul(splat(x[k]), load(y, n))
            store(out, o + n, product if fresh else add(load(out, o + n), product))
            n += LANES
        while n < y.size:
            out[o + n] = x[k] * y[n] if fresh else out[o + n] + x[k] * y[n]
            n += 1


@compiled()
def _dot_row(votes: Any, x: Any, parents: int, dim: int, out: Any) -> None:
    """out[j] = û_j · x_j for one child."""
    full = parents - parents % 4
    for j in range(0, full, 4):  # four sums at a time: each waits for its last addition
        s0, s1, s2, s3 = _ZERO, _ZERO, _ZERO, _ZERO
        for n in range(j * dim, (j + 1) * dim):
            n1, n2, n3 = n + dim, n + 2 * dim, n + 3 * dim
            s0 = fma_number(number(votes, n), number(x, n), s0)
            s1 = fma_number(number(votes, n1), number(x, n1), s1)
            s2 = fma_number(number(votes, n2), number(x, n2), s2)
            s3 = fma_number(number(votes, n3), number(x, n3), s3)
        out[j], out[j + 1], out[j + 2], out[j + 3] = s0, s1, s2, s3
    for j in range(full, parents):
        s0 = _ZERO
        for n in range(j * dim, (j + 1) * dim):
            s0 = fma_number(number(votes, n), number(x, n), s0)
        out[j] = s0


@compiled()
def _softmax_row(logits: Any, parents: int, leaky: bool) -> None:
    """In place; with room for 16 numbers more."""
    largest = _ZERO if leaky else logits[0]
    for j in range(parents):
        largest = max(largest, logits[j])
    logits[parents] = _ZERO  # nobody's
    for j in range(0, parents + 1, LANES):
        store(logits, j, exp(sub(load(logits, j), splat(largest))))
    z = logits[parents] if leaky else _ZERO
    for j in range(parents):
        z += logits[j]
    share = _ONE / z
    for j in range(parents):
        logits[j] *= share


@compiled()
def _through_softmax_row(c: Any, dc: Any, parents: int) -> None:
    """dc becomes the gradient of the logits, c ⊙ (dc − Σ_j c dc)."""
    mean = _ZERO
    for j in range(parents):
        mean = fma_number(c[j], dc[j], mean)
    for j in range(parents):
        dc[j] = c[j] * (dc[j] - mean)


@compiled()
def _add_scaled_row(factors: Any, x: Any, parents: int, dim: int, out: Any) -> None:
    """out[j] += factors[j] · x[j]."""
    for j in range(parents):
        n, end = j * dim, (j + 1) * dim
        while n + LANES <= end:
            store(out, n, fma(splat(factors[j]), load(x, n), load(out, n)))
            n += LANES
        while n < end:
            out[n] = fma_number(factors[j], x[n], out[n])
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
        _dot_row(votes, v, parents, dim, c)
        _softmax_row(c, parents, leaky)
        _add_scaled_row(c, votes, parents, dim, s)
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


@compiled(types.void(_ROWS, _ROWS, int64, int64, boolean, int64[::1], _ROWS))
def next_of_one(
    votes: Any,
    directions: Any,
    parents: int,
    dim: int,
    leaky: bool,
    bounds: Any,
    out: Any,
) -> None:
    """A later iteration of a sample that is alone, Σ_i c_ij û_ij or backward Σ_i db_ij û_ij, from its kept votes.

    `directions` as in `capsnet.routing.cpu.kernels.sum_over_children`.
    """
    width, rows = parents * dim, len(directions)
    s, x = np.empty(width, np.float32), np.empty((rows, width), np.float32)
    factors = np.zeros((rows, parents + LANES), np.float32)
    for t in range(rows):
        _from_lane(directions[t], 0, x[t])
    for part in range(len(out)):
        s[:] = _ZERO
        for i in range(bounds[part], bounds[part + 1]):
            for t in range(rows):
                _dot_row(votes[i], x[t], parents, dim, factors[t])
            _softmax_row(factors[0], parents, leaky)
            if rows == 2:
                _through_softmax_row(factors[0], factors[1], parents)
            _add_scaled_row(factors[rows - 1], votes[i], parents, dim, s)
        _to_lane(s, out[part], 0)


@compiled(types.void(float32[:, ::1], _FLAT, _ROWS))
def votes_of_one(u: Any, w: Any, votes: Any) -> None:
    """The votes of a sample that is alone; u and votes as in `first_of_one`."""
    in_dim, width = u.shape[1], votes.shape[1]
    for i in range(len(votes)):
        _multiply_row(w, i * in_dim * width, u[i], in_dim, width, True, votes[i])


@compiled(
    types.void(
        float32[:, ::1],
        _FLAT,
        _ROWS,
        int64,
        int64,
        _ROWS,
        boolean,
        boolean,
        boolean,
        int64,
        int64,
        _ROWS,
        _FLAT,
    )
)
def gradients_of_one(
    u: Any,
    w: Any,
    votes: Any,
    parents: int,
    dim: int,
    directions: Any,
    leaky: bool,
    through_couplings: bool,
    fresh: bool,
    child_lo: int,
    child_hi: int,
    du: Any,
    dw: Any,
) -> None:
    """`capsnet.routing.cpu.kernels.input_gradients` of a sample that is alone; u, votes and du are its rows."""
    in_dim, width, rows = u.shape[1], parents * dim, len(directions)
    x, dvotes = np.empty((rows, width), np.float32), np.empty(width, np.float32)
    c, db = np.zeros(parents + LANES, np.float32), np.zeros(parents + LANES, np.float32)
    for t in range(rows):
        _from_lane(directions[t], 0, x[t])
    uniform = np.float32(1 / (parents + leaky))
    first = 1 if through_couplings else max(1, rows // 2 - 1)
    for i in range(child_lo, child_hi):
        for n in range(width):
            dvotes[n] = x[1, n] * uniform
        for t in range(2 * first, rows, 2):
            _dot_row(votes[i], x[t], parents, dim, c)
            _softmax_row(c, parents, leaky)
            _add_scaled_row(c, x[t + 1], parents, dim, dvotes)
            if through_couplings:
                _dot_row(votes[i], x[t + 1], parents, dim, db)
                _through_softmax_row(c, db, parents)
                _add_scaled_row(db, x[t], parents, dim, dvotes)
        w0 = i * in_dim * width
        _multiply_transposed_row(w, w0, dvotes, in_dim, width, du[i])
        _outer_row(u[i], dvotes, fresh, dw, w0)
