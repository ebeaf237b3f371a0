"""Numba kernels of the CPU backend. Importing this compiles them, or loads them from disk.

The votes û of a few children and 16 samples fit in the cache. They are computed from u and W, used, and overwritten
by those of the next children. Blocks of samples are an inner loop, so that they share W. `chunked.py` is the same
algorithm in plain PyTorch. See `lanes.py` for "in lanes".
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import boolean, float32, int64, types

from capsnet._support.numba_compiler import compiled
from capsnet.routing.cpu.lanes import (
    add_scaled,
    gather,
    multiply,
    multiply_transposed,
    outer,
    room,
    scatter,
    softmax,
    squash,
    squash_backward,
    through_softmax,
    vote,
    vote_gradients,
)
from capsnet.routing.cpu.simd import GROUP, LANES, add, broadcast, load, mul, splat, store

#: Children whose numbers are brought into lanes together, so that their W stays in the second-level cache.
_TOGETHER, _TOGETHER_LAST = 32, 8
#: Children that vote together, since they share what is read of a block's directions and sums: at most `_SHARING`,
#: with at most `_VOTES` vectors of votes; in the last pass with `_GRADIENTS` vectors of gradients over all blocks.
_SHARING, _VOTES = 8, 3200
_SHARING_LAST, _GRADIENTS = 4, 6400

_FLAT = float32[::1]
_ROWS = float32[:, ::1]
_ANY = types.Array(float32, 3, "A")


@compiled(types.void(_ANY, _FLAT, int64, int64, _ROWS, boolean, boolean, int64[::1], int64, int64, _ROWS))
def sum_over_children(
    u: Any,
    w: Any,
    parents: int,
    dim: int,
    directions: Any,
    uniform: bool,
    leaky: bool,
    bounds: Any,
    part_lo: int,
    part_hi: int,
    out: Any,
) -> None:
    """The reduction of one iteration over parts of the children: Σ_i c_ij û_ij, backward Σ_i db_ij û_ij.

    Args:
        u, w: children (batch, in_caps, in_dim), and W as flat numbers.
        parents, dim: out_caps, out_dim.
        directions: (1 or 2, numbers in lanes): V, and for the backward sum ds.
        uniform: the first iteration, all couplings equal; they are left out of the sum, directions are not read.
        leaky: see `capsnet.routing.route`.
        bounds: part n has the children bounds[n] … bounds[n + 1] − 1.
        part_lo, part_hi: sum the parts part_lo … part_hi − 1.
        out: (parts, numbers in lanes); these parts are overwritten.
    """
    batch, _, in_dim = u.shape
    rows, width, sizes = len(directions), parents * dim, (in_dim, parents, dim)
    row = parents * LANES
    sharing = max(1, min(_SHARING, _VOTES // width))
    x, votes = room(_TOGETHER * in_dim * LANES, out), room(sharing * width * LANES, out)
    factors = room(sharing * rows * row, out)
    for part in range(part_lo, part_hi):
        child_lo, child_hi, sums = bounds[part], bounds[part + 1], out[part]
        for k in range(sums.size):
            sums[k] = 0
        for i0 in range(child_lo, child_hi, _TOGETHER):
            i1 = min(child_hi, i0 + _TOGETHER)
            for b0 in range(0, batch, LANES):
                at = b0 * width
                gather(u, b0, i0, i1, x, 0)
                if uniform:
                    multiply(w, i0 * in_dim * width, x, 0, (i1 - i0) * in_dim, width, False, sums, at)
                    continue
                for i in range(i0, i1, sharing):
                    children = min(sharing, i1 - i)
                    w0, x0 = i * in_dim * width, (i - i0) * in_dim * LANES
                    vote(w, w0, x, x0, children, sizes, votes, directions, 0, rows, at, factors)
                    for f in range(0, children * rows * row, rows * row):
                        softmax(factors, f, parents, leaky)
                        if rows == 2:
                            through_softmax(factors, f, factors, f + row, parents)
                    add_scaled(factors, (rows - 1) * row, rows * row, votes, children, parents, dim, sums, at)


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


@compiled(types.void(types.Array(float32, 4, "A"), _ANY, _ROWS, _ROWS, _FLAT))
def start_backward(s_all: Any, dv: Any, s: Any, directions: Any, work: Any) -> None:
    """Bring s_all into lanes; V of every iteration, and ds of the last one.

    Args:
        s_all: (iterations, batch, out_caps, out_dim).
        dv: (batch, out_caps, out_dim).
        s: (iterations, numbers in lanes), overwritten.
        directions: (2 · iterations, numbers in lanes): V of iteration t in row 2t, overwritten; ds in row 2t + 1,
            of the last iteration only.
        work: numbers in lanes, overwritten.
    """
    iterations, batch, parents, dim = s_all.shape
    width = parents * dim
    for b0 in range(0, batch, LANES):
        at = b0 * width
        gather(dv, b0, 0, parents, work, at)
        for t in range(iterations):
            V = directions[2 * t]
            gather(s_all[t], b0, 0, parents, s[t], at)
            for k in range(at, at + width * LANES, LANES):
                if t == 0:
                    store(V, k, splat(np.float32(0)))
                else:
                    store(V, k, load(s[t - 1], k))
            if t > 0:
                for j in range(parents):
                    squash(V, at + j * dim * LANES, dim)
                for k in range(at, at + width * LANES, LANES):
                    store(V, k, add(load(V, k), load(directions[2 * t - 2], k)))
        for k in range(at, at + width * LANES, dim * LANES):
            squash_backward(s[iterations - 1], k, work, k, dim, directions[2 * iterations - 1], k)


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


@compiled(types.void(_ANY, _FLAT, int64, int64, _ROWS, boolean, boolean, boolean, int64, int64, _ANY, _FLAT))
def input_gradients(
    u: Any,
    w: Any,
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
    """The last pass of the gradient, for some children: dû = Σ_t c^t ds^t + db^t V^t, and from it du and dW.

    Args:
        u, w, parents, dim, leaky, child_lo, child_hi: as in `sum_over_children`.
        directions: as in `start_backward`; ds is 0 where no gradient flows through an iteration.
        through_couplings: all iterations; otherwise the last one alone, its couplings constant.
        fresh: overwrite dw; otherwise add to it.
        du: (batch, in_caps, in_dim), overwritten.
        dw: flat, like w.
    """
    batch, _, in_dim = u.shape
    rows, width, sizes = len(directions), parents * dim, (in_dim, parents, dim)
    blocks = (batch + LANES - 1) // LANES
    sharing = max(1, min(_SHARING_LAST, _GRADIENTS // (blocks * width)))
    # One vector more than needed: a multiple of 4 KiB puts all blocks in one set of the first-level cache.
    in_block, out_block = (_TOGETHER_LAST * in_dim + 1) * LANES, (sharing * width + 1) * LANES
    x, dx = room(blocks * in_block + GROUP * LANES, dw), room(blocks * in_block, dw)
    votes, dvotes = room(sharing * width * LANES, dw), room(blocks * out_block, dw)
    row = parents * LANES
    factors = room(sharing * rows * row, dw)
    uniform = np.float32(1 / (parents + leaky))
    first = 1 if through_couplings else max(1, rows // 2 - 1)
    for i0 in range(child_lo, child_hi, _TOGETHER_LAST):
        i1 = min(child_hi, i0 + _TOGETHER_LAST)
        for b in range(blocks):
            gather(u, b * LANES, i0, i1, x, b * in_block)
        for i in range(i0, i1, sharing):
            children = min(sharing, i1 - i)
            at, w0 = (i - i0) * in_dim * LANES, i * in_dim * width
            for b in range(blocks):
                p, x0, y0 = b * width * LANES, b * in_block + at, b * out_block
                vote(w, w0, x, x0, children, sizes, votes, directions, 2 * first, rows, p, factors)
                for n in range(children):
                    for t in range(2 * first, rows, 2):
                        f = (n * rows + t) * row
                        softmax(factors, f, parents, leaky)
                        if through_couplings:
                            through_softmax(factors, f, factors, f + row, parents)
                        else:
                            for k in range(f + row, f + 2 * row):
                                factors[k] = 0
                vote_gradients(factors, directions, uniform, first, p, children, parents, dim, dvotes, y0)
                for n in range(children):
                    wn, xn, yn = w0 + n * in_dim * width, x0 + n * in_dim * LANES, y0 + n * width * LANES
                    multiply_transposed(w, wn, dvotes, yn, in_dim, width, dx, xn)
            for n in range(children):
                wn, xn, yn = w0 + n * in_dim * width, at + n * in_dim * LANES, n * width * LANES
                outer(x, xn, in_block, dvotes, yn, out_block, blocks, in_dim, width, fresh, votes, dw, wn)
        for b in range(blocks):
            scatter(dx, b * in_block, b * LANES, i0, i1, du)
