"""Parts of the CPU kernels, on numbers "in lanes": sixteen samples travel together, one in each lane of a vector.

No sum then crosses lanes (but one, in `outer`), any size fits, and a sample's result does not depend on the
others in its batch. Something in lanes is a flat array of (blocks of 16 samples, numbers, 16); a lane without a
sample holds zeros. `at`, `x0`, `o0` … are the index in the flat array where the operand starts.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from capsnet._support.numba_compiler import compiled
from capsnet.routing.cpu.simd import (
    GROUP,
    LANES,
    TOTALS,
    add,
    broadcast,
    div,
    exp,
    fma,
    fma_along,
    fma_numbers,
    fma_vectors,
    load,
    load_group,
    maximum,
    mul,
    splat,
    sqrt,
    store,
    store_group,
    sub,
    totals,
    transpose,
)

_ZERO, _ONE, _TINY = np.float32(0), np.float32(1), np.finfo(np.float32).tiny

helper = compiled()


@helper
def room(size: int, like: Any) -> Any:
    """Return memory for numbers like those of an array, aligned to a cache line.

    A vector that lies in two lines takes two accesses.
    """
    numbers = np.empty(size + LANES, like.dtype)
    first = -(numbers.ctypes.data // like.itemsize) % LANES
    return numbers[first : first + size]


@helper
def constant(number: float, like: Any) -> Any:
    """Return a number 16 times, in the type of an array's numbers."""
    return splat(like.dtype.type(number))


@helper
def _zeros(like: Any) -> Any:
    z = constant(0, like)
    return (z, z, z, z, z, z, z, z)[:GROUP]


@helper
def gather(u: Any, b0: int, i0: int, i1: int, out: Any, at: int) -> None:
    """u[b0 : b0 + 16, i0 : i1] in lanes: (children · in_dim, 16) from out[at]."""
    in_dim, here, size = u.shape[2], min(LANES, u.shape[0] - b0), (i1 - i0) * u.shape[2]
    done, row = _in_squares(u, here, size), u.strides[0] // u.itemsize
    for k in range(0, done, LANES):
        transpose(u, b0 * row + i0 * in_dim + k, row, out, at + k * LANES, LANES)
    for lane in range(here):
        for k in range(done, size):
            out[at + k * LANES + lane] = u[b0 + lane, i0 + k // in_dim, k % in_dim]
    for lane in range(here, LANES):
        for k in range(size):
            out[at + k * LANES + lane] = 0


@helper
def scatter(lanes: Any, at: int, b0: int, i0: int, i1: int, out: Any) -> None:
    """The inverse of `gather`."""
    in_dim, here, size = out.shape[2], min(LANES, out.shape[0] - b0), (i1 - i0) * out.shape[2]
    done, row = _in_squares(out, here, size), out.strides[0] // out.itemsize
    for k in range(0, done, LANES):
        transpose(lanes, at + k * LANES, LANES, out, b0 * row + i0 * in_dim + k, row)
    for lane in range(here):
        for k in range(done, size):
            out[b0 + lane, i0 + k // in_dim, k % in_dim] = lanes[at + k * LANES + lane]


@helper
def _in_squares(u: Any, samples: int, size: int) -> int:
    """How many of a sample's `size` numbers can be moved in squares of 16 × 16: they lie one after the other."""
    in_rows = u.strides[2] == u.itemsize and u.strides[1] == u.itemsize * u.shape[2]
    return size - size % LANES if in_rows and samples == LANES else 0


@helper
def multiply(
    w: Any, w0: int, x: Any, x0: int, depth: int, width: int, fresh: bool, out: Any, o0: int
) -> None:
    """out[n] = Σ_k w[k, n] · x[k], n < width, k < depth, or out[n] += … where not fresh.

    W (depth, width) holds numbers, x and out vectors. A group of sums at a time stays in registers.
    """
    n = 0
    while n + GROUP <= width:
        o = o0 + n * LANES
        sums = _zeros(out) if fresh else load_group(out, o)
        for k in range(depth):
            sums = fma_numbers(w, w0 + k * width + n, 1, load(x, x0 + k * LANES), sums)
        store_group(out, o, sums)
        n += GROUP
    while n < width:
        o = o0 + n * LANES
        s = constant(0, out) if fresh else load(out, o)
        for k in range(depth):
            s = fma(broadcast(w, w0 + k * width + n), load(x, x0 + k * LANES), s)
        store(out, o, s)
        n += 1


@helper
def multiply_transposed(w: Any, w0: int, x: Any, x0: int, depth: int, width: int, out: Any, o0: int) -> None:
    """out[k] = Σ_n w[k, n] · x[n], n < width, k < depth; as `multiply`."""
    k = 0
    while k + GROUP <= depth:
        sums = _zeros(out)
        for n in range(width):
            sums = fma_numbers(w, w0 + k * width + n, width, load(x, x0 + n * LANES), sums)
        store_group(out, o0 + k * LANES, sums)
        k += GROUP
    while k < depth:
        s = constant(0, out)
        for n in range(width):
            s = fma(broadcast(w, w0 + k * width + n), load(x, x0 + n * LANES), s)
        store(out, o0 + k * LANES, s)
        k += 1


@helper
def outer(
    x: Any,
    x0: int,
    x_block: int,
    y: Any,
    y0: int,
    y_block: int,
    blocks: int,
    depth: int,
    width: int,
    fresh: bool,
    sums: Any,
    out: Any,
    o0: int,
) -> None:
    """out[k, n] = Σ over samples of x[k] · y[n], or += where not fresh; out holds numbers.

    Block b of x starts at x0 + b · x_block, of y at y0 + b · y_block. `sums` is room for width vectors.
    Rows of x are taken in groups: vectors behind the last one are read, almost a group, and their sums not used.
    """
    for k0 in range(0, depth, GROUP):
        for n in range(width):
            rows = _zeros(out)
            for b in range(blocks):
                v = load(y, y0 + b * y_block + n * LANES)
                rows = fma_vectors(x, x0 + k0 * LANES + b * x_block, v, rows)
            store(sums, n * LANES, totals(rows))
        for k in range(min(GROUP, depth - k0)):
            o, lane = o0 + (k0 + k) * width, TOTALS[k]
            for n in range(width):
                total = sums[n * LANES + lane]
                out[o + n] = total if fresh else out[o + n] + total


@helper
def vote(
    w: Any,
    w0: int,
    x: Any,
    x0: int,
    children: int,
    sizes: Any,
    votes: Any,
    directions: Any,
    first: int,
    last: int,
    at: int,
    out: Any,
) -> None:
    """The votes û_j = W_j · x of some children, and out[t, j] = û_j · directions[t, j], t = first … last − 1.

    `sizes` are in_dim, out_caps, out_dim. Child n has its W, x, votes and out behind those of the one before, out
    with room for all directions. Votes are compared while they are still in registers, where parents have whole
    groups of numbers; where there is nothing to compare with, none are made.
    """
    if first == last:
        return
    depth, parents, dim = sizes
    width, rows, row = parents * dim, len(directions), directions.shape[1]
    w_child, x_child, votes_child, out_child = (
        depth * width,
        depth * LANES,
        width * LANES,
        rows * parents * LANES,
    )
    if dim % GROUP != 0:
        for i in range(children):
            multiply(w, w0 + i * w_child, x, x0 + i * x_child, depth, width, True, votes, i * votes_child)
            for t in range(first, last):
                o = i * out_child + t * parents * LANES
                _dot(votes, i * votes_child, directions, t * row + at, parents, dim, out, o)
        return
    for j in range(parents):
        for i in range(children):
            w_i, x_i, o = w0 + i * w_child, x0 + i * x_child, i * out_child + j * LANES
            for t in range(first, last):
                store(out, o + t * parents * LANES, constant(0, out))
            for n in range(j * dim, (j + 1) * dim, GROUP):
                made = _zeros(out)
                for k in range(depth):
                    made = fma_numbers(w, w_i + k * width + n, 1, load(x, x_i + k * LANES), made)
                store_group(votes, i * votes_child + n * LANES, made)
                for t in range(first, last):
                    o_t = o + t * parents * LANES
                    store(out, o_t, fma_along(made, directions, t * row + at + n * LANES, load(out, o_t)))


@helper
def _dot(votes: Any, votes0: int, x: Any, x0: int, parents: int, dim: int, out: Any, o0: int) -> None:
    """out[j] = û_j · x_j."""
    for j in range(parents):
        s = constant(0, out)
        for k in range(j * dim * LANES, (j + 1) * dim * LANES, LANES):
            s = fma(load(votes, votes0 + k), load(x, x0 + k), s)
        store(out, o0 + j * LANES, s)


@helper
def softmax(logits: Any, at: int, parents: int, leaky: bool) -> None:
    """In place, from `at`; see `softmax_over_parents`. Shifted by the largest logit, so that nothing overflows."""
    end = at + parents * LANES
    largest = constant(0, logits) if leaky else load(logits, at)
    for k in range(at, end, LANES):
        largest = maximum(load(logits, k), largest)
    z = exp(sub(constant(0, logits), largest)) if leaky else constant(0, logits)
    for k in range(at, end, LANES):
        e = exp(sub(load(logits, k), largest))
        z = add(z, e)
        store(logits, k, e)
    share = div(constant(1, logits), z)
    for k in range(at, end, LANES):
        store(logits, k, mul(load(logits, k), share))


@helper
def through_softmax(c: Any, c0: int, dc: Any, dc0: int, parents: int) -> None:
    """dc becomes the gradient of the logits, c ⊙ (dc − Σ_j c dc)."""
    mean = constant(0, c)
    for k in range(0, parents * LANES, LANES):
        mean = fma(load(c, c0 + k), load(dc, dc0 + k), mean)
    for k in range(0, parents * LANES, LANES):
        store(dc, dc0 + k, mul(load(c, c0 + k), sub(load(dc, dc0 + k), mean)))


@helper
def add_scaled(
    factors: Any, f0: int, f_child: int, votes: Any, children: int, parents: int, dim: int, out: Any, o0: int
) -> None:
    """out[j] += Σ_i factors_i[j] û_ij; child i has its factors at f0 + i · f_child, its votes at i · width."""
    width = parents * dim
    for j in range(parents):
        n, end = j * dim, (j + 1) * dim
        while n + GROUP <= end:
            sums = load_group(out, o0 + n * LANES)
            for i in range(children):
                f = load(factors, f0 + i * f_child + j * LANES)
                sums = fma_vectors(votes, (i * width + n) * LANES, f, sums)
            store_group(out, o0 + n * LANES, sums)
            n += GROUP
        while n < end:
            s = load(out, o0 + n * LANES)
            for i in range(children):
                s = fma(load(factors, f0 + i * f_child + j * LANES), load(votes, (i * width + n) * LANES), s)
            store(out, o0 + n * LANES, s)
            n += 1


@helper
def vote_gradients(
    factors: Any,
    directions: Any,
    uniform: Any,
    first: int,
    at: int,
    children: int,
    parents: int,
    dim: int,
    out: Any,
    o0: int,
) -> None:
    """dû = uniform · ds⁰ + Σ_t c^t ds^t + db^t V^t, t ≥ first, of some children.

    Row 2t of `directions` is V^t, of `factors` c^t; row 2t + 1 is ds^t, and db^t. Child n has its factors and out
    behind those of the one before.
    """
    width, rows, row = parents * dim, len(directions), directions.shape[1]
    for j in range(parents):
        for child in range(children):
            f0, o = (child * rows * parents + j) * LANES, o0 + child * width * LANES
            n, end = j * dim * LANES, (j + 1) * dim * LANES
            while n + GROUP * LANES <= end:
                k = at + n
                sums = fma_vectors(directions, row + k, splat(uniform), _zeros(out))
                for t in range(2 * first, rows, 2):
                    c = load(factors, f0 + t * parents * LANES)
                    db = load(factors, f0 + (t + 1) * parents * LANES)
                    sums = fma_vectors(directions, (t + 1) * row + k, c, sums)
                    sums = fma_vectors(directions, t * row + k, db, sums)
                store_group(out, o + n, sums)
                n += GROUP * LANES
            while n < end:
                k = at + n
                s = mul(load(directions, row + k), splat(uniform))
                for t in range(2 * first, rows, 2):
                    s = fma(load(factors, f0 + t * parents * LANES), load(directions, (t + 1) * row + k), s)
                    s = fma(load(factors, f0 + (t + 1) * parents * LANES), load(directions, t * row + k), s)
                store(out, o + n, s)
                n += LANES


@helper
def squash(s: Any, at: int, dim: int) -> None:
    """In place, for one parent; see `capsnet.functional.squash`."""
    square = splat(_ZERO)
    for k in range(at, at + dim * LANES, LANES):
        square = fma(load(s, k), load(s, k), square)
    factor = div(sqrt(square), add(splat(_ONE), square))
    for k in range(at, at + dim * LANES, LANES):
        store(s, k, mul(load(s, k), factor))


@helper
def squash_backward(s: Any, s0: int, dv: Any, v0: int, dim: int, ds: Any, ds0: int) -> None:
    """ds for one parent; see `capsnet.routing.chunked.squash_backward`."""
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
