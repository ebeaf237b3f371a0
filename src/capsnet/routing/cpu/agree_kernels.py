"""Numba kernels of `capsnet.routing.agree`: one pass over the children forward, and one backward.

As in `kernels.py`, the votes of a few children and 16 samples are made, used and overwritten. What belongs to the
parents comes in lanes, in "halves": for each block of samples the factors of û, then (where there is a precision) those
of û², then a constant for each parent. A half h gives each vote the number h(û) = constant + Σ_d û_d (linear_d +
quadratic_d û_d). Logits and the gradients of the couplings are such numbers. Moments are returned as halves, too.

The rows of a matrix pose come first in everything that belongs to parents: (rows, out_caps, out_dim).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import boolean, from_dtype, int64, types

from capsnet._support.numba_compiler import compiled
from capsnet.routing.cpu.lanes import (
    constant,
    gather,
    helper,
    multiply,
    multiply_transposed,
    outer,
    room,
    scatter,
    softmax,
)
from capsnet.routing.cpu.simd import GROUP, LANES, add, exp, fma, load, maximum, mul, store, sub

#: As in `kernels.py`: children brought into lanes together, and children that vote together.
_TOGETHER, _TOGETHER_LAST = 32, 8
_SHARING, _VOTES = 8, 3200
_SHARING_LAST, _GRADIENTS = 4, 6400


@compiled()
def moments(
    u: Any,
    w: Any,
    a: Any,
    z: Any,
    sizes: tuple[int, int, int, int],
    state: Any,
    options: tuple[bool, bool, bool, bool, bool, bool],
    bounds: Any,
    part_lo: int,
    part_hi: int,
    out: Any,
    log_sums: Any,
) -> None:
    """The forward pass over parts of the children: moments of the votes, or each child's log-sum over parents.

    Args:
        u, w: children (batch, in_caps, rows · in_dim), and W as flat numbers.
        a, z: activations and normaliser, (batch, in_caps, 1); not read where there is none.
        sizes: in_dim, rows, out_caps, out_dim.
        state: in lanes: the half of the logits, then minus the centres where there are any.
        options: whether there is a precision, an activation, a normaliser and a centre; leaky; wants_log_sums.
        bounds, part_lo, part_hi: as in `capsnet.routing.cpu.kernels.sum_over_children`.
        out: (parts, half in lanes); these parts are overwritten.
        log_sums: (batch, in_caps, 1), overwritten where wanted.
    """
    in_dim, rows, parents, dim = sizes
    is_quadratic, has_a, has_z, has_centre, leaky, wants_logs = options
    numbers, width = rows * in_dim, parents * dim
    size, half = rows * width, _half(sizes, is_quadratic)
    row = parents * LANES
    sharing = max(1, min(_SHARING, _VOTES // size))
    x, votes = room(_TOGETHER * numbers * LANES, w), room(sharing * size * LANES, w)
    given, norms = _ones(_TOGETHER, w), room(_TOGETHER * LANES, w)
    factors = room(sharing * row, w)
    for part in range(part_lo, part_hi):
        sums = out[part]
        sums[:] = 0
        for i0 in range(bounds[part], bounds[part + 1], _TOGETHER):
            i1 = min(bounds[part + 1], i0 + _TOGETHER)
            for b0 in range(0, len(u), LANES):
                at, to = b0 * (half + size * has_centre), b0 * half
                gather(u, b0, i0, i1, x, 0)
                _bring(has_a, a, b0, i0, i1, given, 0)
                _bring(has_z, z, b0, i0, i1, norms, 0)
                for i in range(i0, i1, sharing):
                    children = min(sharing, i1 - i)
                    w0, x0 = i * in_dim * width, (i - i0) * numbers * LANES
                    _vote(w, w0, x, x0, children, sizes, state, at + half * LANES, has_centre, votes)
                    _compare(votes, children, sizes, state, at, is_quadratic, factors)
                    for n in range(children):
                        child = (i - i0 + n) * LANES
                        if wants_logs:
                            _log_sum(factors, n * row, parents, leaky, norms, child)
                            continue
                        _couple(factors, n * row, parents, leaky, has_z, norms, child)
                        _scale(factors, n * row, parents, given, child)
                    if not wants_logs:
                        _add_moments(factors, votes, children, sizes, is_quadratic, sums, to)
                _take(wants_logs, norms, 0, b0, i0, i1, log_sums)


@compiled()
def gradients(
    u: Any,
    w: Any,
    a: Any,
    z: Any,
    sizes: tuple[int, int, int, int],
    state: Any,
    options: tuple[bool, bool, bool, bool, bool, bool],
    bounds: Any,
    part_lo: int,
    part_hi: int,
    out: Any,
    dlog_sums: Any,
    is_fresh_u: bool,
    is_fresh_w: bool,
    du: Any,
    dw: Any,
    da: Any,
    dz: Any,
) -> None:
    """The backward pass over parts of the children.

    Args:
        u, w, a, z, sizes, bounds, part_lo, part_hi: as in `moments`.
        state: in lanes: the half of the logits, the half of the moments' gradients, then minus the centres if any.
        options: as in `moments`.
        out: (parts, half in lanes): the gradients of the logits' half; these parts are overwritten.
        dlog_sums: (batch, in_caps, 1); read for log-sums only.
        is_fresh_u, is_fresh_w: overwrite du, dw; otherwise add to them.
        du, dw, da, dz: like u, w, a, z. da and dz are overwritten where they exist.
    """
    in_dim, rows, parents, dim = sizes
    is_quadratic, has_a, has_z, has_centre, leaky, wants_logs = options
    numbers, width = rows * in_dim, parents * dim
    size, half = rows * width, _half(sizes, is_quadratic)
    blocks, row = (len(u) + LANES - 1) // LANES, parents * LANES
    sharing = max(1, min(_SHARING_LAST, _GRADIENTS // (blocks * size)))
    # One vector more than needed: a multiple of 4 KiB puts all blocks in one set of the first-level cache.
    in_block, out_block = (_TOGETHER_LAST * numbers + 1) * LANES, (sharing * size + 1) * LANES
    one_block = _TOGETHER_LAST * LANES
    x, dx = room(blocks * in_block + GROUP * LANES, w), room(blocks * in_block, w)
    given, norms = _ones(blocks * _TOGETHER_LAST, w), room(blocks * one_block, w)
    dgiven = room(blocks * one_block, w)
    votes, dvotes = room(max(sharing * size, width) * LANES, w), room(blocks * out_block, w)
    shares, slopes = room(sharing * row, w), room(sharing * row, w)
    for part in range(part_lo, part_hi):
        sums = out[part]
        sums[:] = 0
        for i0 in range(bounds[part], bounds[part + 1], _TOGETHER_LAST):
            i1 = min(bounds[part + 1], i0 + _TOGETHER_LAST)
            for b in range(blocks):
                gather(u, b * LANES, i0, i1, x, b * in_block)
                _bring(has_a, a, b * LANES, i0, i1, given, b * one_block)
                _bring(has_z, z, b * LANES, i0, i1, norms, b * one_block)
                _bring(wants_logs, dlog_sums, b * LANES, i0, i1, given, b * one_block)
            for i in range(i0, i1, sharing):
                children = min(sharing, i1 - i)
                w0, x0 = i * in_dim * width, (i - i0) * numbers * LANES
                for b in range(blocks):
                    at, to = b * (2 * half + size * has_centre) * LANES, b * half * LANES
                    second, centres = at + half * LANES, at + 2 * half * LANES
                    _vote(w, w0, x, b * in_block + x0, children, sizes, state, centres, has_centre, votes)
                    _compare(votes, children, sizes, state, at, is_quadratic, shares)
                    _compare(votes, children, sizes, state, second, is_quadratic, slopes)
                    for n in range(children):
                        child = b * one_block + (i - i0 + n) * LANES
                        _couple(shares, n * row, parents, leaky, has_z, norms, child)
                        if wants_logs:
                            _slopes_of_log_sum(shares, slopes, n * row, parents, given, child)
                        else:
                            _slopes_of_moments(
                                shares, slopes, n * row, parents, has_z, given, dgiven, norms, child
                            )
                    _add_moments(slopes, votes, children, sizes, is_quadratic, sums, to)
                    y0 = b * out_block
                    _vote_gradients(
                        votes, shares, slopes, children, sizes, state, at, is_quadratic, dvotes, y0
                    )
                    for n in range(children * rows):
                        wn, yn = w0 + n // rows * in_dim * width, y0 + n * width * LANES
                        xn = b * in_block + x0 + n * in_dim * LANES
                        multiply_transposed(w, wn, dvotes, yn, in_dim, width, dx, xn)
                for n in range(children * rows):
                    wn, yn, xn = w0 + n // rows * in_dim * width, n * width * LANES, x0 + n * in_dim * LANES
                    new = is_fresh_w and n % rows == 0
                    outer(x, xn, in_block, dvotes, yn, out_block, blocks, in_dim, width, new, votes, dw, wn)
            for b in range(blocks):
                _add_present(not is_fresh_u, du, b * LANES, i0, i1, x, dx, b * in_block)
                scatter(dx, b * in_block, b * LANES, i0, i1, du)
                _take(has_a, dgiven, b * one_block, b * LANES, i0, i1, da)
                _take(has_z, norms, b * one_block, b * LANES, i0, i1, dz)


@helper
def _half(sizes: tuple[int, int, int, int], is_quadratic: bool) -> int:
    """Return how many numbers a half has."""
    _, rows, parents, dim = sizes
    return rows * parents * dim * (1 + is_quadratic) + parents


@helper
def _ones(vectors: int, like: Any) -> Any:
    numbers = room(vectors * LANES, like)
    numbers[:] = 1
    return numbers


@helper
def _bring(exists: bool, x: Any, b0: int, i0: int, i1: int, out: Any, at: int) -> None:
    if exists:
        gather(x, b0, i0, i1, out, at)


@helper
def _take(exists: bool, lanes: Any, at: int, b0: int, i0: int, i1: int, out: Any) -> None:
    if exists:
        scatter(lanes, at, b0, i0, i1, out)


@helper
def _add_present(wanted: bool, du: Any, b0: int, i0: int, i1: int, x: Any, dx: Any, at: int) -> None:
    """Add the numbers that du has already to dx; x is room for them."""
    _bring(wanted, du, b0, i0, i1, x, at)
    if wanted:
        for k in range(at, at + (i1 - i0) * du.shape[2] * LANES, LANES):
            store(dx, k, add(load(x, k), load(dx, k)))


@helper
def _vote(
    w: Any,
    w0: int,
    x: Any,
    x0: int,
    children: int,
    sizes: tuple[int, int, int, int],
    centres: Any,
    at: int,
    has_centre: bool,
    votes: Any,
) -> None:
    """The votes of some children, less the parents' centres, child after child: (rows, out_caps, out_dim)."""
    in_dim, rows, parents, dim = sizes
    width = parents * dim
    for n in range(children):
        wn, vn = w0 + n * in_dim * width, n * rows * width * LANES
        if has_centre:
            for k in range(0, rows * width * LANES, LANES):
                store(votes, vn + k, load(centres, at + k))
        for r in range(rows):
            xr = x0 + (n * rows + r) * in_dim * LANES
            multiply(w, wn, x, xr, in_dim, width, not has_centre, votes, vn + r * width * LANES)


@helper
def _compare(
    votes: Any,
    children: int,
    sizes: tuple[int, int, int, int],
    state: Any,
    at: int,
    is_quadratic: bool,
    out: Any,
) -> None:
    """out[n, j] = h(û_nj), for the half at state[at]."""
    _, rows, parents, dim = sizes
    size = rows * parents * dim * LANES
    constants = at + (1 + is_quadratic) * size
    for j in range(parents):
        for n in range(children):
            total = load(state, constants + j * LANES)
            for r in range(rows):
                first = (r * parents + j) * dim * LANES
                for k in range(first, first + dim * LANES, LANES):
                    v, slope = load(votes, n * size + k), load(state, at + k)
                    if is_quadratic:
                        slope = fma(v, load(state, at + size + k), slope)
                    total = fma(v, slope, total)
            store(out, (n * parents + j) * LANES, total)


@helper
def _couple(logits: Any, at: int, parents: int, leaky: bool, has_z: bool, norms: Any, child: int) -> None:
    """Logits of a child become couplings: the softmax over parents, or exp(b − Z), infinite from 89 on."""
    if not has_z:
        softmax(logits, at, parents, leaky)
        return
    z, limit = load(norms, child), constant(-89, norms)
    zero = constant(0, norms)
    for k in range(at, at + parents * LANES, LANES):
        store(logits, k, exp(sub(zero, maximum(limit, sub(z, load(logits, k))))))


@helper
def _scale(factors: Any, at: int, parents: int, given: Any, child: int) -> None:
    a = load(given, child)
    for k in range(at, at + parents * LANES, LANES):
        store(factors, k, mul(a, load(factors, k)))


@helper
def _log_sum(logits: Any, at: int, parents: int, leaky: bool, out: Any, child: int) -> None:
    """ln Σ_j exp b_j of a child."""
    largest = constant(0, logits) if leaky else load(logits, at)
    for k in range(at, at + parents * LANES, LANES):
        largest = maximum(load(logits, k), largest)
    total = exp(sub(constant(0, logits), largest)) if leaky else constant(0, logits)
    for k in range(at, at + parents * LANES, LANES):
        total = add(total, exp(sub(load(logits, k), largest)))
    store(out, child, total)
    for lane in range(child, child + LANES):
        out[lane] = np.log(out[lane])
    store(out, child, add(load(out, child), largest))


@helper
def _slopes_of_moments(
    c: Any,
    g: Any,
    at: int,
    parents: int,
    has_z: bool,
    given: Any,
    dgiven: Any,
    norms: Any,
    child: int,
) -> None:
    """From c and the gradients g of the shares a c: shares into c, the logits' gradients into g; da, dZ into norms."""
    a, total = load(given, child), constant(0, c)
    for k in range(at, at + parents * LANES, LANES):
        total = fma(load(c, k), load(g, k), total)
    mean = constant(0, c) if has_z else total
    for k in range(at, at + parents * LANES, LANES):
        share = mul(a, load(c, k))
        store(g, k, mul(share, sub(load(g, k), mean)))
        store(c, k, share)
    store(dgiven, child, total)
    if has_z:
        store(norms, child, sub(constant(0, c), mul(a, total)))


@helper
def _slopes_of_log_sum(c: Any, slopes: Any, at: int, parents: int, dlog_sums: Any, child: int) -> None:
    """From the couplings, which are the derivatives of a log-sum: the logits' gradients. No moments: shares are 0."""
    _scale(c, at, parents, dlog_sums, child)
    for k in range(at, at + parents * LANES, LANES):
        store(slopes, k, load(c, k))
        store(c, k, constant(0, c))


@helper
def _add_moments(
    factors: Any,
    votes: Any,
    children: int,
    sizes: tuple[int, int, int, int],
    is_quadratic: bool,
    out: Any,
    at: int,
) -> None:
    """Add Σ_n f_n û_n, Σ_n f_n û_n² (if quadratic) and Σ_n f_n of some children to the half at out[at]."""
    _, rows, parents, dim = sizes
    size = rows * parents * dim * LANES
    constants = at + (1 + is_quadratic) * size
    for j in range(parents):
        count = load(out, constants + j * LANES)
        for n in range(children):
            count = add(count, load(factors, (n * parents + j) * LANES))
        store(out, constants + j * LANES, count)
        for r in range(rows):
            first = (r * parents + j) * dim * LANES
            for k in range(first, first + dim * LANES, LANES):
                linear = load(out, at + k)
                if is_quadratic:
                    quadratic = load(out, at + size + k)
                    for n in range(children):
                        v = load(votes, n * size + k)
                        weighted = mul(load(factors, (n * parents + j) * LANES), v)
                        linear, quadratic = add(linear, weighted), fma(weighted, v, quadratic)
                    store(out, at + size + k, quadratic)
                else:
                    for n in range(children):
                        v = load(votes, n * size + k)
                        linear = fma(load(factors, (n * parents + j) * LANES), v, linear)
                store(out, at + k, linear)


@helper
def _vote_gradients(
    votes: Any,
    shares: Any,
    slopes: Any,
    children: int,
    sizes: tuple[int, int, int, int],
    state: Any,
    at: int,
    is_quadratic: bool,
    out: Any,
    o0: int,
) -> None:
    """dû = share · h₂′(û) + slope · h₁′(û), where h₁ is the logits' half and h₂ that of the moments' gradients."""
    _, rows, parents, dim = sizes
    size = rows * parents * dim * LANES
    other = at + (1 + is_quadratic) * size + parents * LANES
    for j in range(parents):
        for n in range(children):
            share, slope = load(shares, (n * parents + j) * LANES), load(slopes, (n * parents + j) * LANES)
            for r in range(rows):
                first = (r * parents + j) * dim * LANES
                for k in range(first, first + dim * LANES, LANES):
                    total = fma(share, load(state, other + k), mul(slope, load(state, at + k)))
                    if is_quadratic:
                        bent = mul(slope, load(state, at + size + k))
                        bent = fma(share, load(state, other + size + k), bent)
                        total = fma(add(bent, bent), load(votes, n * size + k), total)
                    store(out, o0 + n * size + k, total)


def compile_for(dtype: type[np.float32] | type[np.float64]) -> None:
    """Compile the kernels for a dtype, or load them from disk."""
    number = from_dtype(np.dtype(dtype))
    children, flat, rows = types.Array(number, 3, "A"), number[::1], number[:, ::1]
    sizes, options = types.UniTuple(int64, 4), types.UniTuple(boolean, 6)
    fixed = (children, flat, children, children, sizes, flat, options, int64[::1], int64, int64, rows)
    signatures = {
        moments: (*fixed, children),
        gradients: (*fixed, children, boolean, boolean, children, flat, children, children),
    }
    for kernel, signature in signatures.items():
        kernel.disable_compile(False)
        kernel.compile(signature)
        kernel.disable_compile()  # arrays in C order must not compile another one
