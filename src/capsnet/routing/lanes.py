"""Parts of the CPU kernels, on numbers "in lanes": sixteen samples travel together, one in each lane of a vector.

No sum then crosses lanes (but one, in `outer`), any size fits, and a sample's result does not depend on the
others in its batch. Something in lanes is a flat array of (blocks of 16 samples, numbers, 16); a lane without a
sample holds zeros. `at`, `x0`, `o0` … are the index in the flat array where the operand starts.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from capsnet.compiled import compiled
from capsnet.routing.simd import (
    LANES,
    TOTALS,
    add,
    broadcast,
    div,
    exp,
    fma,
    load,
    maximum,
    mul,
    splat,
    sqrt,
    store,
    sub,
    totals,
)

_ZERO, _ONE, _TINY = np.float32(0), np.float32(1), np.finfo(np.float32).tiny

helper = compiled()


@helper
def gather(u: Any, b0: int, i0: int, i1: int, out: Any, at: int) -> None:
    """u[b0 : b0 + 16, i0 : i1] in lanes: (children · in_dim, 16) from out[at]."""
    in_dim = u.shape[2]
    here = min(LANES, u.shape[0] - b0)
    for lane in range(here):
        k = at + lane
        for i in range(i0, i1):
            for c in range(in_dim):
                out[k] = u[b0 + lane, i, c]
                k += LANES
    for lane in range(here, LANES):
        for k in range((i1 - i0) * in_dim):
            out[at + k * LANES + lane] = 0


@helper
def scatter(lanes: Any, at: int, b0: int, i0: int, i1: int, out: Any) -> None:
    """The inverse of `gather`."""
    in_dim = out.shape[2]
    for lane in range(min(LANES, out.shape[0] - b0)):
        k = at + lane
        for i in range(i0, i1):
            for c in range(in_dim):
                out[b0 + lane, i, c] = lanes[k]
                k += LANES


@helper
def multiply(
    w: Any, w0: int, x: Any, x0: int, depth: int, width: int, fresh: bool, out: Any, o0: int
) -> None:
    """out[n] = Σ_k w[k, n] · x[k], n < width, k < depth, or out[n] += … where not fresh.

    W (depth, width) holds numbers, x and out vectors. Eight sums at a time stay in registers: enough to hide
    the latency of a multiplication, few enough for AVX2's 16 registers to hold them without W.
    """
    n = 0
    while n + 8 <= width:
        o = o0 + n * LANES
        s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = splat(_ZERO)
        if not fresh:
            s0, s1 = load(out, o), load(out, o + LANES)
            s2, s3 = load(out, o + 2 * LANES), load(out, o + 3 * LANES)
            s4, s5 = load(out, o + 4 * LANES), load(out, o + 5 * LANES)
            s6, s7 = load(out, o + 6 * LANES), load(out, o + 7 * LANES)
        p = w0 + n
        for k in range(depth):
            v = load(x, x0 + k * LANES)
            s0, s1 = fma(broadcast(w, p), v, s0), fma(broadcast(w, p + 1), v, s1)
            s2, s3 = fma(broadcast(w, p + 2), v, s2), fma(broadcast(w, p + 3), v, s3)
            s4, s5 = fma(broadcast(w, p + 4), v, s4), fma(broadcast(w, p + 5), v, s5)
            s6, s7 = fma(broadcast(w, p + 6), v, s6), fma(broadcast(w, p + 7), v, s7)
            p += width
        store(out, o, s0)
        store(out, o + LANES, s1)
        store(out, o + 2 * LANES, s2)
        store(out, o + 3 * LANES, s3)
        store(out, o + 4 * LANES, s4)
        store(out, o + 5 * LANES, s5)
        store(out, o + 6 * LANES, s6)
        store(out, o + 7 * LANES, s7)
        n += 8
    while n < width:
        o = o0 + n * LANES
        s0 = splat(_ZERO) if fresh else load(out, o)
        p = w0 + n
        for k in range(depth):
            s0 = fma(broadcast(w, p), load(x, x0 + k * LANES), s0)
            p += width
        store(out, o, s0)
        n += 1


@helper
def multiply_transposed(w: Any, w0: int, x: Any, x0: int, depth: int, width: int, out: Any, o0: int) -> None:
    """out[k] = Σ_n w[k, n] · x[n], n < width, k < depth; as `multiply`."""
    k = 0
    while k + 8 <= depth:
        s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = splat(_ZERO)
        p = w0 + k * width
        p3, p6 = p + 3 * width, p + 6 * width
        for n in range(width):
            v = load(x, x0 + n * LANES)
            s0, s1 = fma(broadcast(w, p), v, s0), fma(broadcast(w, p + width), v, s1)
            s2, s3 = fma(broadcast(w, p + 2 * width), v, s2), fma(broadcast(w, p3), v, s3)
            s4, s5 = fma(broadcast(w, p3 + width), v, s4), fma(broadcast(w, p3 + 2 * width), v, s5)
            s6, s7 = fma(broadcast(w, p6), v, s6), fma(broadcast(w, p6 + width), v, s7)
            p, p3, p6 = p + 1, p3 + 1, p6 + 1
        o = o0 + k * LANES
        store(out, o, s0)
        store(out, o + LANES, s1)
        store(out, o + 2 * LANES, s2)
        store(out, o + 3 * LANES, s3)
        store(out, o + 4 * LANES, s4)
        store(out, o + 5 * LANES, s5)
        store(out, o + 6 * LANES, s6)
        store(out, o + 7 * LANES, s7)
        k += 8
    while k < depth:
        s0 = splat(_ZERO)
        for n in range(width):
            s0 = fma(broadcast(w, w0 + k * width + n), load(x, x0 + n * LANES), s0)
        store(out, o0 + k * LANES, s0)
        k += 1


@helper
def outer(
    x: Any,
    x0: int,
    x_block: int,
    y: Any,
    blocks: int,
    depth: int,
    width: int,
    fresh: bool,
    sums: Any,
    out: Any,
    o0: int,
) -> None:
    """out[k, n] = Σ over samples of x[k] · y[n], or += where not fresh; out holds numbers.

    Block b of x starts at x0 + b · x_block, block b of y at b · width · 16. `sums` is room for width vectors.
    """
    for k0 in range(0, depth, 8):
        here = min(8, depth - k0)
        # Where fewer than eight rows are left, the others repeat the last: the same cost, and no second loop.
        p0 = x0 + k0 * LANES
        p1, p2, p3 = (
            p0 + min(1, here - 1) * LANES,
            p0 + min(2, here - 1) * LANES,
            p0 + min(3, here - 1) * LANES,
        )
        p4, p5, p6 = (
            p0 + min(4, here - 1) * LANES,
            p0 + min(5, here - 1) * LANES,
            p0 + min(6, here - 1) * LANES,
        )
        p7 = p0 + (here - 1) * LANES
        for n in range(width):
            s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = splat(_ZERO)
            q, p = n * LANES, 0
            for _ in range(blocks):
                v = load(y, q)
                s0, s1 = fma(load(x, p0 + p), v, s0), fma(load(x, p1 + p), v, s1)
                s2, s3 = fma(load(x, p2 + p), v, s2), fma(load(x, p3 + p), v, s3)
                s4, s5 = fma(load(x, p4 + p), v, s4), fma(load(x, p5 + p), v, s5)
                s6, s7 = fma(load(x, p6 + p), v, s6), fma(load(x, p7 + p), v, s7)
                q, p = q + width * LANES, p + x_block
            store(sums, n * LANES, totals((s0, s1, s2, s3, s4, s5, s6, s7)))
        for k in range(here):
            o = o0 + (k0 + k) * width
            for n in range(width):
                out[o + n] = (
                    sums[n * LANES + TOTALS[k]] if fresh else out[o + n] + sums[n * LANES + TOTALS[k]]
                )


@helper
def dot(votes: Any, x: Any, x0: int, parents: int, dim: int, out: Any) -> None:
    """out[j] = û_j · x_j."""
    for j in range(parents):
        s = splat(_ZERO)
        for k in range(j * dim * LANES, (j + 1) * dim * LANES, LANES):
            s = fma(load(votes, k), load(x, x0 + k), s)
        store(out, j * LANES, s)


@helper
def dot_both(votes: Any, x: Any, y: Any, at: int, parents: int, dim: int, out_x: Any, out_y: Any) -> None:
    """`dot` with x and with y."""
    for j in range(parents):
        sx = sy = splat(_ZERO)
        for k in range(j * dim * LANES, (j + 1) * dim * LANES, LANES):
            vote = load(votes, k)
            sx, sy = fma(vote, load(x, at + k), sx), fma(vote, load(y, at + k), sy)
        store(out_x, j * LANES, sx)
        store(out_y, j * LANES, sy)


@helper
def softmax(logits: Any, parents: int, leaky: bool) -> None:
    """In place; see `softmax_over_parents`. Shifted by the largest logit, so that nothing overflows."""
    largest = splat(_ZERO) if leaky else load(logits, 0)
    for j in range(parents):
        largest = maximum(load(logits, j * LANES), largest)
    z = exp(sub(splat(_ZERO), largest)) if leaky else splat(_ZERO)
    for j in range(parents):
        e = exp(sub(load(logits, j * LANES), largest))
        z = add(z, e)
        store(logits, j * LANES, e)
    share = div(splat(_ONE), z)
    for j in range(parents):
        store(logits, j * LANES, mul(load(logits, j * LANES), share))


@helper
def through_softmax(c: Any, dc: Any, parents: int) -> None:
    """dc becomes the gradient of the logits, c ⊙ (dc − Σ_j c dc)."""
    mean = splat(_ZERO)
    for j in range(parents):
        mean = fma(load(c, j * LANES), load(dc, j * LANES), mean)
    for k in range(0, parents * LANES, LANES):
        store(dc, k, mul(load(c, k), sub(load(dc, k), mean)))


@helper
def add_scaled(factors: Any, x: Any, x0: int, parents: int, dim: int, out: Any, o0: int) -> None:
    """out[j, d] += factors[j] · x[j, d]."""
    for j in range(parents):
        f = load(factors, j * LANES)
        for k in range(j * dim * LANES, (j + 1) * dim * LANES, LANES):
            store(out, o0 + k, fma(f, load(x, x0 + k), load(out, o0 + k)))


@helper
def add_both(a: Any, x: Any, b: Any, y: Any, at: int, parents: int, dim: int, out: Any) -> None:
    """out[j, d] += a[j] · x[j, d] + b[j] · y[j, d]; x, y and out start at `at`."""
    for j in range(parents):
        f, g = load(a, j * LANES), load(b, j * LANES)
        for k in range(at + j * dim * LANES, at + (j + 1) * dim * LANES, LANES):
            store(out, k, fma(g, load(y, k), fma(f, load(x, k), load(out, k))))


@helper
def squash(s: Any, at: int, dim: int) -> None:
    """In place, for one parent; see `capsnet.nonlinearity.squash`."""
    square = splat(_ZERO)
    for k in range(at, at + dim * LANES, LANES):
        square = fma(load(s, k), load(s, k), square)
    factor = div(sqrt(square), add(splat(_ONE), square))
    for k in range(at, at + dim * LANES, LANES):
        store(s, k, mul(load(s, k), factor))


@helper
def squash_backward(s: Any, s0: int, dv: Any, v0: int, dim: int, ds: Any, ds0: int) -> None:
    """ds for one parent; see `capsnet.routing.autograd.squash_backward`."""
    one, square, along = splat(_ONE), splat(_ZERO), splat(_ZERO)
    for k in range(0, dim * LANES, LANES):
        square = fma(load(s, s0 + k), load(s, s0 + k), square)
        along = fma(load(s, s0 + k), load(dv, v0 + k), along)
    length, shrink = sqrt(square), div(one, add(one, square))
    along = div(along, maximum(length, splat(_TINY)))
    along = mul(mul(along, sub(one, square)), mul(shrink, shrink))
    factor = mul(length, shrink)
    for k in range(0, dim * LANES, LANES):
        store(ds, ds0 + k, fma(factor, load(dv, v0 + k), mul(along, load(s, s0 + k))))
