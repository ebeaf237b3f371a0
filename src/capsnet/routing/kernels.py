"""Numba kernels of the CPU backend (`capsnet.routing.cpu`). Importing this compiles them, or loads them from disk.

For each child and 16 samples the votes û fit in the first-level cache. They are computed from u and W_i, used,
and overwritten by the next child's. Blocks of samples are the inner loop, so that they share W_i. `chunked.py`
is the same algorithm in plain PyTorch. See `lanes.py` for "in lanes".
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import boolean, float32, int64, types

from capsnet.compiled import compiled
from capsnet.routing.lanes import (
    add_both,
    add_scaled,
    dot,
    dot_both,
    gather,
    multiply,
    multiply_transposed,
    outer,
    scatter,
    softmax,
    squash,
    squash_backward,
    through_softmax,
)
from capsnet.routing.simd import LANES, add, broadcast, load, mul, splat, store
from capsnet.routing.single import first_of_one, next_of_one, sum_for_one

__all__ = ["first_of_one", "next_of_one"]  # with those below: what `capsnet.routing.cpu` calls

#: Children whose numbers are brought into lanes together; their W stays in the second-level cache.
_TOGETHER, _TOGETHER_LAST = 32, 8
#: Up to so many samples are faster one by one than in a block that is mostly empty.
_FEW = 4

_FLAT = float32[::1]
_ROWS = float32[:, ::1]
_ANY = types.Array(float32, 3, "A")


@compiled(
    types.void(
        _ANY, _FLAT, int64, int64, _FLAT, _FLAT, boolean, boolean, boolean, int64[::1], int64, int64, _ROWS
    )
)
def sum_over_children(
    u: Any,
    w: Any,
    parents: int,
    dim: int,
    V: Any,
    ds: Any,
    uniform: bool,
    leaky: bool,
    backward: bool,
    bounds: Any,
    part_lo: int,
    part_hi: int,
    out: Any,
) -> None:
    """The reduction of one iteration over parts of the children: Σ_i c_ij û_ij, backward Σ_i db_ij û_ij.

    Args:
        u, w: children (batch, in_caps, in_dim), and W as flat numbers.
        parents, dim: out_caps, out_dim.
        V, ds: in lanes; V is not read where uniform, ds only where backward.
        uniform: the first iteration, all couplings equal; they are left out of the sum.
        leaky: see `capsnet.routing.route`.
        backward: which of the two sums.
        bounds: part n has the children bounds[n] … bounds[n + 1] − 1.
        part_lo, part_hi: the first part to sum, and the first that is left out.
        out: (parts, numbers in lanes); these parts are overwritten.
    """
    batch, _, in_dim = u.shape
    width = parents * dim
    in_blocks = batch  # the first samples, which travel together
    if not backward and batch % LANES <= _FEW:
        in_blocks -= batch % LANES
    x = np.empty(_TOGETHER * in_dim * LANES, np.float32)
    votes = np.empty(width * LANES, np.float32)
    c, db = np.empty(parents * LANES, np.float32), np.empty(parents * LANES, np.float32)
    for part in range(part_lo, part_hi):
        child_lo, child_hi, sums = bounds[part], bounds[part + 1], out[part]
        for k in range(sums.size):
            sums[k] = 0
        for i0 in range(child_lo, child_hi, _TOGETHER):
            i1 = min(child_hi, i0 + _TOGETHER)
            for b0 in range(0, in_blocks, LANES):
                at = b0 * width
                gather(u, b0, i0, i1, x, 0)
                if uniform:
                    multiply(w, i0 * in_dim * width, x, 0, (i1 - i0) * in_dim, width, False, sums, at)
                    continue
                for i in range(i0, i1):
                    x0 = (i - i0) * in_dim * LANES
                    multiply(w, i * in_dim * width, x, x0, in_dim, width, True, votes, 0)
                    if backward:
                        dot_both(votes, V, ds, at, parents, dim, c, db)
                        softmax(c, parents, leaky)
                        through_softmax(c, db, parents)
                        add_scaled(db, votes, 0, parents, dim, sums, at)
                    else:
                        dot(votes, V, at, parents, dim, c)
                        softmax(c, parents, leaky)
                        add_scaled(c, votes, 0, parents, dim, sums, at)
        for sample in range(in_blocks, batch):
            at = in_blocks * width + sample - in_blocks
            sum_for_one(u, sample, w, parents, dim, V, at, uniform, leaky, child_lo, child_hi, sums)


@compiled(types.void(_ROWS, float32, _FLAT, _FLAT, _FLAT, _ANY, _ANY))
def finish_iteration(partial: Any, coupling: float, bias: Any, V: Any, work: Any, s: Any, v: Any) -> None:
    """s = bias + coupling · Σ partial, v = squash(s), V += v.

    Args:
        partial: sums over some children each, (parts, numbers in lanes).
        coupling: the uniform one in the first iteration, later 1.
        bias: (out_caps · out_dim) numbers, or none.
        V: in lanes.
        work: as large as V.
        s, v: (batch, out_caps, out_dim), overwritten.
    """
    batch, parents, dim = s.shape
    width = parents * dim
    for b0 in range(0, batch, LANES):
        at = b0 * width
        for n in range(width):
            k = at + n * LANES
            total = load(partial[0], k)
            for part in range(1, partial.shape[0]):
                total = add(total, load(partial[part], k))
            total = mul(total, splat(coupling))
            store(work, k, total if bias.size == 0 else add(total, broadcast(bias, n)))
        scatter(work, at, b0, 0, parents, s)
        for j in range(parents):
            squash(work, at + j * dim * LANES, dim)
        scatter(work, at, b0, 0, parents, v)
        for k in range(at, at + width * LANES, LANES):
            store(V, k, add(load(V, k), load(work, k)))


@compiled(types.void(types.Array(float32, 4, "A"), _ANY, _ROWS, _ROWS, _ROWS, _FLAT))
def start_backward(s_all: Any, dv: Any, s: Any, V: Any, ds: Any, work: Any) -> None:
    """Bring s_all into lanes; V of every iteration, and ds of the last one.

    Args:
        s_all: (iterations, batch, out_caps, out_dim).
        dv: (batch, out_caps, out_dim).
        s, V, ds: (iterations, numbers in lanes), overwritten; of ds the last iteration only.
        work: numbers in lanes, overwritten.
    """
    iterations, batch, parents, dim = s_all.shape
    width = parents * dim
    for b0 in range(0, batch, LANES):
        at = b0 * width
        gather(dv, b0, 0, parents, work, at)
        for t in range(iterations):
            gather(s_all[t], b0, 0, parents, s[t], at)
            for k in range(at, at + width * LANES, LANES):
                if t == 0:
                    store(V[0], k, splat(np.float32(0)))
                else:
                    store(V[t], k, load(s[t - 1], k))
            if t > 0:
                for j in range(parents):
                    squash(V[t], at + j * dim * LANES, dim)
                for k in range(at, at + width * LANES, LANES):
                    store(V[t], k, add(load(V[t], k), load(V[t - 1], k)))
        for k in range(at, at + width * LANES, dim * LANES):
            squash_backward(s[iterations - 1], k, work, k, dim, ds[iterations - 1], k)


@compiled(types.void(_ROWS, _FLAT, _FLAT, _FLAT, int64))
def finish_backward(partial: Any, G: Any, s: Any, ds: Any, dim: int) -> None:
    """G += Σ partial; ds = squash'(s)ᵀ G, of the iteration before. All in lanes; partial as in `finish_iteration`."""
    for first in range(0, G.size, dim * LANES):
        for k in range(first, first + dim * LANES, LANES):
            total = load(partial[0], k)
            for part in range(1, partial.shape[0]):
                total = add(total, load(partial[part], k))
            store(G, k, add(load(G, k), total))
        squash_backward(s, first, G, first, dim, ds, first)


@compiled(
    types.void(_ANY, _FLAT, int64, int64, _ROWS, _ROWS, boolean, boolean, boolean, int64, int64, _ANY, _FLAT)
)
def input_gradients(
    u: Any,
    w: Any,
    parents: int,
    dim: int,
    V: Any,
    ds: Any,
    leaky: bool,
    through_couplings: bool,
    fresh: bool,
    child_lo: int,
    child_hi: int,
    du: Any,
    dw: Any,
) -> None:
    """The last pass of the gradient, for some children: dû = Σ_t c^t ds^t + db^t V^t, and from it du and dW.

    Args:
        u, w, parents, dim, leaky, child_lo, child_hi: as in `sum_over_children`.
        V, ds: (iterations, numbers in lanes); ds is 0 where no gradient flows through an iteration.
        through_couplings: all iterations; otherwise the last one alone, its couplings constant.
        fresh: overwrite dw; otherwise add to it.
        du: (batch, in_caps, in_dim), overwritten.
        dw: flat, like w.
    """
    batch, _, in_dim = u.shape
    iterations, width = V.shape[0], parents * dim
    blocks = (batch + LANES - 1) // LANES
    in_block = (
        _TOGETHER_LAST * in_dim + 1
    ) * LANES  # + 1: a power of two puts all blocks in one set of the cache
    x, dx = np.empty(blocks * in_block, np.float32), np.empty(blocks * in_block, np.float32)
    votes, dvotes = np.empty(width * LANES, np.float32), np.empty(blocks * width * LANES, np.float32)
    c, db = np.empty(parents * LANES, np.float32), np.empty(parents * LANES, np.float32)
    first = 1 if through_couplings else max(1, iterations - 1)
    uniform = np.float32(1 / (parents + leaky))
    for i0 in range(child_lo, child_hi, _TOGETHER_LAST):
        i1 = min(child_hi, i0 + _TOGETHER_LAST)
        for b in range(blocks):
            gather(u, b * LANES, i0, i1, x, b * in_block)
        for i in range(i0, i1):
            w0, at = i * in_dim * width, (i - i0) * in_dim * LANES
            for b in range(blocks):
                p = b * width * LANES
                multiply(w, w0, x, b * in_block + at, in_dim, width, True, votes, 0)
                for k in range(p, p + width * LANES, LANES):
                    store(dvotes, k, mul(load(ds[0], k), splat(uniform)))
                for t in range(first, iterations):
                    dot_both(votes, V[t], ds[t], p, parents, dim, c, db)
                    softmax(c, parents, leaky)
                    if through_couplings:
                        through_softmax(c, db, parents)
                        add_both(c, ds[t], db, V[t], p, parents, dim, dvotes)
                    else:
                        add_scaled(c, ds[t], p, parents, dim, dvotes, p)
                multiply_transposed(w, w0, dvotes, p, in_dim, width, dx, b * in_block + at)
            outer(x, at, in_block, dvotes, blocks, in_dim, width, fresh, votes, dw, w0)
        for b in range(blocks):
            scatter(dx, b * in_block, b * LANES, i0, i1, du)
