"""The Triton kernels of `capsnet.routing.agree`. The votes exist only as tiles in registers.

A tile holds one child's votes of BB samples for all parents: (BB, JP, N). N = RP · DP are the numbers of a vote, row
after row; JP, RP and DP are out_caps, rows and out_dim rounded up to powers of two. What is beyond is loaded as 0 and
adds nothing. Names as in `capsnet.routing.agree`; bent = −½ Λ, so that a logit is k + Σ_d û_d (Q_d + bent_d û_d).
"""

# mypy: ignore-errors
# ruff: noqa: ARG001, SIM108  Triton's language has no annotations for tensors; the kernels share their arguments

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _child(
    u,
    i,
    c,
    sample,
    n_samples,
    n_children,
    C: tl.constexpr,
    R: tl.constexpr,
    RP: tl.constexpr,
    DP: tl.constexpr,
):
    """Number c of each row of child i, for each number of its votes: (BB, N)."""
    r = tl.arange(0, RP * DP) // DP
    at = ((sample.to(tl.int64)[:, None] * n_children + i) * R + r[None, :]) * C + c
    return tl.load(u + at, mask=(sample < n_samples)[:, None] & (r < R)[None, :], other=0.0)


@triton.jit
def _weight(
    w, i, c, j, C: tl.constexpr, J: tl.constexpr, D: tl.constexpr, RP: tl.constexpr, DP: tl.constexpr
):
    """Row c of child i's W for parents j, for each number of a vote: (parents, N)."""
    d = tl.arange(0, RP * DP) % DP
    at = ((i * C + c) * J + j.to(tl.int64)[:, None]) * D + d[None, :]
    return tl.load(w + at, mask=(j < J)[:, None] & (d < D)[None, :], other=0.0)


@triton.jit
def _poses(
    x,
    wanted: tl.constexpr,
    sample,
    j,
    n_samples,
    J: tl.constexpr,
    R: tl.constexpr,
    D: tl.constexpr,
    RP: tl.constexpr,
    DP: tl.constexpr,
):
    """A number for each number of a vote of parents j, (BB, parents, N); 0 if not wanted."""
    n = tl.arange(0, RP * DP)
    r, d = n // DP, n % DP
    at = (sample.to(tl.int64)[:, None, None] * J + j[None, :, None]) * (R * D) + (r * D + d)[None, None, :]
    exists = ((r < R) & (d < D))[None, None, :] & (j < J)[None, :, None] & (sample < n_samples)[:, None, None]
    return tl.load(x + at, mask=exists & wanted, other=0.0)


@triton.jit
def _per_parent(x, wanted: tl.constexpr, sample, j, n_samples, J: tl.constexpr):
    """A number for each of the parents j, (BB, parents); 0 if not wanted."""
    at = sample.to(tl.int64)[:, None] * J + j[None, :]
    return tl.load(x + at, mask=(sample < n_samples)[:, None] & (j < J)[None, :] & wanted, other=0.0)


@triton.jit
def _vote(
    u,
    w,
    centre,
    i,
    j,
    sample,
    n_samples,
    n_children,
    C: tl.constexpr,
    R: tl.constexpr,
    J: tl.constexpr,
    D: tl.constexpr,
    RP: tl.constexpr,
    DP: tl.constexpr,
):
    """The votes of child i for parents j, less the centre: (BB, parents, N)."""
    votes = -centre
    for c in range(C):
        x = _child(u, i, c, sample, n_samples, n_children, C, R, RP, DP)
        votes += x[:, None, :] * _weight(w, i, c, j, C, J, D, RP, DP)[None, :, :]
    n = tl.arange(0, RP * DP)
    return tl.where(((n // DP < R) & (n % DP < D))[None, None, :], votes, 0.0)


@triton.jit
def _half(constant, linear, quadratic, votes):
    """constant + Σ_d û_d (linear_d + quadratic_d û_d): (BB, parents)."""
    return constant + tl.sum(votes * (linear + votes * quadratic), axis=2)


@triton.jit
def _log_sum(logits, j, J: tl.constexpr, LEAKY: tl.constexpr):
    """ln Σ_j exp b_j, (BB,)."""
    there = tl.where((j < J)[None, :], logits, float("-inf"))
    largest = tl.max(there, axis=1)
    if LEAKY:
        largest = tl.maximum(largest, 0.0)
    total = tl.sum(tl.exp(there - largest[:, None]), axis=1)
    if LEAKY:
        total += tl.exp(-largest)
    return largest + tl.log(total)


@triton.jit
def _of_child(x, wanted: tl.constexpr, i, sample, n_samples, n_children):
    """A number of child i, (BB,); 1 if not wanted."""
    at = x + sample.to(tl.int64) * n_children + i
    return tl.load(at, mask=(sample < n_samples) & wanted, other=1.0)


@triton.jit
def moments(
    u,
    w,
    query,
    bent,
    offset,
    a,
    z,
    centre,
    count,
    first,
    second,
    log_sums,
    n_samples,
    n_children,
    children_per_program,
    HAS_QUERY: tl.constexpr,
    HAS_PRECISION: tl.constexpr,
    HAS_OFFSET: tl.constexpr,
    HAS_A: tl.constexpr,
    HAS_Z: tl.constexpr,
    HAS_CENTRE: tl.constexpr,
    LEAKY: tl.constexpr,
    LOG_SUMS: tl.constexpr,
    C: tl.constexpr,
    R: tl.constexpr,
    J: tl.constexpr,
    D: tl.constexpr,
    RP: tl.constexpr,
    JP: tl.constexpr,
    DP: tl.constexpr,
    BB: tl.constexpr,
):
    """Moments over this program's children into count, first, second [program]; or log_sums of the children."""
    sample = tl.program_id(0) * BB + tl.arange(0, BB)
    j = tl.arange(0, JP)
    begin = tl.program_id(1) * children_per_program
    end = tl.minimum(begin + children_per_program, n_children)
    linear = _poses(query, HAS_QUERY, sample, j, n_samples, J, R, D, RP, DP)
    quadratic = _poses(bent, HAS_PRECISION, sample, j, n_samples, J, R, D, RP, DP)
    constant = _per_parent(offset, HAS_OFFSET, sample, j, n_samples, J)
    middle = _poses(centre, HAS_CENTRE, sample, j, n_samples, J, R, D, RP, DP)
    m0, m1, m2 = tl.zeros_like(constant), tl.zeros_like(linear), tl.zeros_like(linear)
    for i in range(begin, end):
        votes = _vote(u, w, middle, i, j, sample, n_samples, n_children, C, R, J, D, RP, DP)
        logits = _half(constant, linear, quadratic, votes)
        if LOG_SUMS:
            at = log_sums + sample.to(tl.int64) * n_children + i
            tl.store(at, _log_sum(logits, j, J, LEAKY), mask=sample < n_samples)
        else:
            if HAS_Z:
                total = _of_child(z, True, i, sample, n_samples, n_children)
            else:
                total = _log_sum(logits, j, J, LEAKY)
            share = tl.where((j < J)[None, :], tl.exp(logits - total[:, None]), 0.0)
            share *= _of_child(a, HAS_A, i, sample, n_samples, n_children)[:, None]
            m0 += share
            m1 += share[:, :, None] * votes
            m2 += share[:, :, None] * votes * votes
    if not LOG_SUMS:
        _store_moments(count, first, second, m0, m1, m2, HAS_PRECISION, sample, j, n_samples, J, R, D, RP, DP)


@triton.jit
def _store_moments(
    count,
    first,
    second,
    m0,
    m1,
    m2,
    HAS_SECOND: tl.constexpr,
    sample,
    j,
    n_samples,
    J: tl.constexpr,
    R: tl.constexpr,
    D: tl.constexpr,
    RP: tl.constexpr,
    DP: tl.constexpr,
):
    """Write this program's sums."""
    n = tl.arange(0, RP * DP)
    r, d = n // DP, n % DP
    row = tl.program_id(1).to(tl.int64) * n_samples + sample
    here = (sample < n_samples)[:, None] & (j < J)[None, :]
    tl.store(count + row[:, None] * J + j[None, :], m0, mask=here)
    at = (row[:, None, None] * J + j[None, :, None]) * (R * D) + (r * D + d)[None, None, :]
    exists = here[:, :, None] & ((r < R) & (d < D))[None, None, :]
    tl.store(first + at, m1, mask=exists)
    if HAS_SECOND:
        tl.store(second + at, m2, mask=exists)


@triton.jit
def gradients(
    u,
    w,
    query,
    bent,
    offset,
    a,
    z,
    centre,
    dcount,
    dfirst,
    dsecond,
    dlog_sums,
    doffset,
    dquery,
    dbent,
    du,
    da,
    log_totals,
    n_samples,
    n_children,
    children_per_program,
    HAS_QUERY: tl.constexpr,
    HAS_PRECISION: tl.constexpr,
    HAS_OFFSET: tl.constexpr,
    HAS_A: tl.constexpr,
    HAS_Z: tl.constexpr,
    HAS_CENTRE: tl.constexpr,
    LEAKY: tl.constexpr,
    LOG_SUMS: tl.constexpr,
    C: tl.constexpr,
    R: tl.constexpr,
    J: tl.constexpr,
    D: tl.constexpr,
    RP: tl.constexpr,
    JP: tl.constexpr,
    DP: tl.constexpr,
    BB: tl.constexpr,
):
    """All gradients but that of W, as sums of this program or (du, da) of each child.

    da is Σ_j c g. `weight_gradient` needs it and log_totals, both (batch, in_caps).
    """
    sample = tl.program_id(0) * BB + tl.arange(0, BB)
    here = sample < n_samples
    j = tl.arange(0, JP)
    begin = tl.program_id(1) * children_per_program
    end = tl.minimum(begin + children_per_program, n_children)
    linear = _poses(query, HAS_QUERY, sample, j, n_samples, J, R, D, RP, DP)
    quadratic = _poses(bent, HAS_PRECISION, sample, j, n_samples, J, R, D, RP, DP)
    constant = _per_parent(offset, HAS_OFFSET, sample, j, n_samples, J)
    middle = _poses(centre, HAS_CENTRE, sample, j, n_samples, J, R, D, RP, DP)
    g1 = _poses(dfirst, not LOG_SUMS, sample, j, n_samples, J, R, D, RP, DP)
    g2 = _poses(dsecond, HAS_PRECISION and not LOG_SUMS, sample, j, n_samples, J, R, D, RP, DP)
    g0 = _per_parent(dcount, not LOG_SUMS, sample, j, n_samples, J)
    m0, m1, m2 = tl.zeros_like(constant), tl.zeros_like(linear), tl.zeros_like(linear)
    for i in range(begin, end):
        votes = _vote(u, w, middle, i, j, sample, n_samples, n_children, C, R, J, D, RP, DP)
        logits = _half(constant, linear, quadratic, votes)
        of_child = sample.to(tl.int64) * n_children + i
        if HAS_Z:
            total = _of_child(z, True, i, sample, n_samples, n_children)
        else:
            total = _log_sum(logits, j, J, LEAKY)
        couplings = tl.where((j < J)[None, :], tl.exp(logits - total[:, None]), 0.0)
        if LOG_SUMS:
            given = _of_child(dlog_sums, True, i, sample, n_samples, n_children)
            mean = given * 0.0
            share, slope = couplings * 0.0, couplings * given[:, None]
        else:
            given = _of_child(a, HAS_A, i, sample, n_samples, n_children)
            along = _half(g0, g1, g2, votes)
            mean = tl.sum(couplings * along, axis=1)
            share = couplings * given[:, None]
            slope = share * along if HAS_Z else share * (along - mean[:, None])
        tl.store(log_totals + of_child, total, mask=here)
        tl.store(da + of_child, mean, mask=here)
        m0 += slope
        m1 += slope[:, :, None] * votes
        m2 += slope[:, :, None] * votes * votes
        dvotes = share[:, :, None] * (g1 + 2 * votes * g2) + slope[:, :, None] * (
            linear + 2 * votes * quadratic
        )
        r = tl.arange(0, RP)
        for c in range(C):
            pulled = tl.sum(dvotes * _weight(w, i, c, j, C, J, D, RP, DP)[None, :, :], axis=1)
            numbers = tl.sum(tl.reshape(pulled, (BB, RP, DP)), axis=2)
            at = du + (of_child[:, None] * R + r[None, :]) * C + c
            tl.store(at, numbers, mask=here[:, None] & (r < R)[None, :])
    _store_moments(doffset, dquery, dbent, m0, m1, m2, HAS_PRECISION, sample, j, n_samples, J, R, D, RP, DP)


@triton.jit
def weight_gradient(
    u,
    w,
    query,
    bent,
    offset,
    a,
    z,
    centre,
    dcount,
    dfirst,
    dsecond,
    dlog_sums,
    da,
    log_totals,
    dw,
    n_samples,
    n_children,
    HAS_QUERY: tl.constexpr,
    HAS_PRECISION: tl.constexpr,
    HAS_OFFSET: tl.constexpr,
    HAS_A: tl.constexpr,
    HAS_Z: tl.constexpr,
    HAS_CENTRE: tl.constexpr,
    LEAKY: tl.constexpr,
    LOG_SUMS: tl.constexpr,
    C: tl.constexpr,
    R: tl.constexpr,
    J: tl.constexpr,
    D: tl.constexpr,
    RP: tl.constexpr,
    JP: tl.constexpr,
    DP: tl.constexpr,
    CP: tl.constexpr,
    BB: tl.constexpr,
):
    """The gradient of W for one child and one parent, over all samples."""
    i = tl.program_id(0)
    j = tl.program_id(1) + tl.arange(0, 1)
    c_all, d = tl.arange(0, CP), tl.arange(0, DP)
    total_of = tl.zeros((CP, DP), u.dtype.element_ty)
    for b in range(0, n_samples, BB):
        sample = b + tl.arange(0, BB)
        linear = _poses(query, HAS_QUERY, sample, j, n_samples, J, R, D, RP, DP)
        quadratic = _poses(bent, HAS_PRECISION, sample, j, n_samples, J, R, D, RP, DP)
        constant = _per_parent(offset, HAS_OFFSET, sample, j, n_samples, J)
        middle = _poses(centre, HAS_CENTRE, sample, j, n_samples, J, R, D, RP, DP)
        g1 = _poses(dfirst, not LOG_SUMS, sample, j, n_samples, J, R, D, RP, DP)
        g2 = _poses(dsecond, HAS_PRECISION and not LOG_SUMS, sample, j, n_samples, J, R, D, RP, DP)
        g0 = _per_parent(dcount, not LOG_SUMS, sample, j, n_samples, J)
        votes = _vote(u, w, middle, i, j, sample, n_samples, n_children, C, R, J, D, RP, DP)
        total = _of_child(log_totals, True, i, sample, n_samples, n_children)
        couplings = tl.exp(_half(constant, linear, quadratic, votes) - total[:, None])
        if LOG_SUMS:
            given = _of_child(dlog_sums, True, i, sample, n_samples, n_children)
            share, slope = couplings * 0.0, couplings * given[:, None]
        else:
            given = _of_child(a, HAS_A, i, sample, n_samples, n_children)
            along = _half(g0, g1, g2, votes)
            mean = _of_child(da, True, i, sample, n_samples, n_children)
            share = couplings * given[:, None]
            slope = share * along if HAS_Z else share * (along - mean[:, None])
        dvotes = share[:, :, None] * (g1 + 2 * votes * g2) + slope[:, :, None] * (
            linear + 2 * votes * quadratic
        )
        flat = tl.reshape(dvotes, (BB, RP * DP))
        for c in range(C):
            x = _child(u, i, c, sample, n_samples, n_children, C, R, RP, DP)  # 0 beyond the last sample
            row = tl.sum(tl.reshape(tl.sum(x * flat, axis=0), (RP, DP)), axis=0)
            total_of += tl.where((c_all == c)[:, None], row[None, :], 0.0)
    at = dw + ((i * C + c_all).to(tl.int64)[:, None] * J + tl.program_id(1)) * D + d[None, :]
    tl.store(at, total_of, mask=(c_all < C)[:, None] & (d < D)[None, :])
