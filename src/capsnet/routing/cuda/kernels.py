"""The Triton kernels of routing. The votes exist only as tiles in registers.

Notation: P_bijc = Σ_d W_icjd X_bjd pulls a parent's vector X back through W to the child's side. A vote's
dot product with X is then a sum over the child's few numbers, û_bij · X_bj = Σ_c u_bic P_bijc, and sums
of votes over children are matrix products again, Σ_i a_bij û_bij = Σ_ic (a_bij u_bic) W_icjd. So every
heavy step is a matrix product whose inner size is out_dim, or children × in_dim, without padding the
child's 8 numbers to a tensor core's 16. As in flash attention, u plays query, and W holds keys and values.

A tile's columns are (child, number of that child), `KK = ICH · CP` of them: ICH children, and CP is in_dim
rounded up to a power of two. Masked children and samples are loaded as zeros and so add nothing.
"""

# mypy: ignore-errors
# ruff: noqa: PLR0912, PLR0915, RUF005  Triton's language: no annotations for tensors, no starred tuples

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _squash(s):
    """Equation 1 along the last axis, without a division by the length."""
    squared = tl.sum(s * s, axis=-1)
    return s * (tl.sqrt(squared) / (1.0 + squared))[:, None]


@triton.jit
def _squash_backward(s, dv):
    """Gradient of `_squash` at s: f·dv + (f′/n)(s·dv)·s with f = n / (1 + n²); 0 at s = 0."""
    squared = tl.sum(s * s, axis=-1)
    length = tl.sqrt(squared)
    slope = (1.0 - squared) / ((1.0 + squared) * (1.0 + squared))
    along = tl.sum(s * dv, axis=-1) * slope / tl.where(length > 0.0, length, 1.0)
    return dv * (length / (1.0 + squared))[:, None] + s * along[:, None]


@triton.jit
def _columns(first, last, C: tl.constexpr, CP: tl.constexpr, KK: tl.constexpr):
    """Row of W's (in_caps · in_dim) axis for each column of a tile of children, and whether it exists."""
    k = tl.arange(0, KK)
    child = first + k // CP
    number = k % CP
    return child.to(tl.int64) * C + number, (child < last) & (number < C)


@triton.jit
def _load_children(u, sample, row, exists, n_samples, row_size):
    """u of a tile: (BB, KK)."""
    mask = (sample < n_samples)[:, None] & exists[None, :]
    return tl.load(u + sample.to(tl.int64)[:, None] * row_size + row[None, :], mask=mask, other=0.0)


@triton.jit
def _load_weight(w, row, exists, j, J: tl.constexpr, D: tl.constexpr, DP: tl.constexpr):
    """W of a tile of children and parent j: (KK, DP)."""
    d = tl.arange(0, DP)
    mask = exists[:, None] & (d < D)[None, :]
    return tl.load(w + row[:, None] * (J * D) + j * D + d[None, :], mask=mask, other=0.0)


@triton.jit
def _load_parent(x, sample, j, n_samples, J: tl.constexpr, D: tl.constexpr, DP: tl.constexpr):
    """A vector for each sample and parent j: (BB, DP)."""
    d = tl.arange(0, DP)
    mask = (sample < n_samples)[:, None] & (d < D)[None, :]
    return tl.load(x + (sample[:, None] * J + j) * D + d[None, :], mask=mask, other=0.0)


@triton.jit
def _dot(a, b, total, PRECISION: tl.constexpr):
    """total + a @ b, summed in float32.

    PRECISION: "bf16" and "tf32" round a and b to that. "float32" takes three tf32 products of their high and
    low parts; what it drops is low times low, about 2⁻²² of the result.
    """
    if PRECISION == "bf16":
        total = tl.dot(a.to(tl.bfloat16), b.to(tl.bfloat16), total)
    elif PRECISION == "tf32":
        total = tl.dot(a.to(tl.float32), b.to(tl.float32), total, input_precision="tf32")
    else:
        a, b = a.to(tl.float32), b.to(tl.float32)
        a_high, b_high = _high(a), _high(b)
        total = tl.dot(a - a_high, b_high, total, input_precision="tf32")
        total = tl.dot(a_high, b - b_high, total, input_precision="tf32")
        total = tl.dot(a_high, b_high, total, input_precision="tf32")
    return total


@triton.jit
def _high(x):
    """The upper 19 of float32's 32 bits: exact in tf32. (Own code: `tf32x3` takes twice the instructions.)"""
    return (x.to(tl.int32, bitcast=True) & -8192).to(tl.float32, bitcast=True)


@triton.jit
def _pull_back(x, weight, PRECISION: tl.constexpr):
    """P of a tile: (BB, DP), (KK, DP) → (BB, KK)."""
    zero = tl.zeros((x.shape[0], weight.shape[0]), tl.float32)
    return _dot(x, tl.trans(weight), zero, PRECISION)


@triton.jit
def _per_child(tile, BB: tl.constexpr, ICH: tl.constexpr, CP: tl.constexpr):
    """Sum over each child's numbers: (BB, ICH · CP) → (BB, ICH)."""
    return tl.sum(tl.reshape(tile, (BB, ICH, CP)), axis=2)


@triton.jit
def _spread(x, BB: tl.constexpr, ICH: tl.constexpr, CP: tl.constexpr):
    """One value per child onto each of the child's numbers: (BB, ICH) → (BB, ICH · CP)."""
    return tl.reshape(tl.broadcast_to(x[:, :, None], (BB, ICH, CP)), (BB, ICH * CP))


@triton.jit
def sum_votes(
    u,
    w,
    v_sum,
    ds,
    log_total,
    mean_dc,
    partial,
    n_samples,
    n_children,
    children_per_program,
    C: tl.constexpr,
    J: tl.constexpr,
    D: tl.constexpr,
    CP: tl.constexpr,
    DP: tl.constexpr,
    BB: tl.constexpr,
    ICH: tl.constexpr,
    UNIFORM: tl.constexpr,
    BACKWARD: tl.constexpr,
    LEAKY: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Σ_i c_bij û_bij over this program's children (BACKWARD: Σ_i db_bij û_bij), into partial[program].

    BACKWARD also keeps what the last pass needs to find couplings and db again without a sum over parents:
    log Σ_j exp b_bij, and Σ_j c_bij dc_bij, both (batch, in_caps).
    """
    KK: tl.constexpr = ICH * CP
    sample = tl.program_id(0) * BB + tl.arange(0, BB)
    first = tl.program_id(1) * children_per_program
    last = tl.minimum(first + children_per_program, n_children)
    sums = ()
    v_sums = ()  # loaded once: the compiler keeps them in shared memory, as the products want them
    dss = ()
    for j in tl.static_range(J):
        sums = sums + (tl.zeros((BB, DP), tl.float32),)
        if not UNIFORM:
            v_sums = v_sums + (_load_parent(v_sum, sample, j, n_samples, J, D, DP),)
        if BACKWARD:
            dss = dss + (_load_parent(ds, sample, j, n_samples, J, D, DP),)

    for i in range(first, last, ICH):
        row, exists = _columns(i, last, C, CP, KK)
        children = _load_children(u, sample, row, exists, n_samples, n_children * C)
        weights = ()
        for j in tl.static_range(J):
            weights = weights + (_load_weight(w, row, exists, j, J, D, DP),)

        if UNIFORM:
            updated = ()
            for j in tl.static_range(J):
                updated = updated + (_dot(children, weights[j], sums[j], PRECISION),)
            sums = updated
        else:
            logits = ()
            for j in tl.static_range(J):
                logit = _per_child(children * _pull_back(v_sums[j], weights[j], PRECISION), BB, ICH, CP)
                logits = logits + (logit,)
            largest = tl.zeros((BB, ICH), tl.float32) if LEAKY else logits[0]
            for j in tl.static_range(J):
                largest = tl.maximum(largest, logits[j])
            total = tl.exp(-largest) if LEAKY else tl.zeros((BB, ICH), tl.float32)
            factors = ()
            for j in tl.static_range(J):
                factors = factors + (tl.exp(logits[j] - largest),)
                total += factors[j]
            if BACKWARD:
                dcs = ()
                mean = tl.zeros((BB, ICH), tl.float32)
                for j in tl.static_range(J):
                    dc = _per_child(children * _pull_back(dss[j], weights[j], PRECISION), BB, ICH, CP)
                    dcs = dcs + (dc,)
                    mean += factors[j] * dcs[j]
                mean /= total
                child = i + tl.arange(0, ICH)
                at = sample.to(tl.int64)[:, None] * n_children + child[None, :]
                mask = (sample < n_samples)[:, None] & (child < last)[None, :]
                tl.store(log_total + at, largest + tl.log(total), mask=mask)
                tl.store(mean_dc + at, mean, mask=mask)
                dbs = ()
                for j in tl.static_range(J):
                    dbs = dbs + (factors[j] * (dcs[j] - mean),)
                factors = dbs
            share = 1.0 / total
            updated = ()
            for j in tl.static_range(J):
                scaled = children * _spread(factors[j] * share, BB, ICH, CP)
                updated = updated + (_dot(scaled, weights[j], sums[j], PRECISION),)
            sums = updated

    coupling: tl.constexpr = 1.0 / (J + 1 if LEAKY else J) if UNIFORM else 1.0
    d = tl.arange(0, DP)
    mask = (sample < n_samples)[:, None] & (d < D)[None, :]
    out = (
        partial + tl.program_id(1).to(tl.int64) * n_samples * (J * D) + sample[:, None] * (J * D) + d[None, :]
    )
    for j in tl.static_range(J):
        tl.store(out + j * D, sums[j] * coupling, mask=mask)


@triton.jit
def _sum_partials(partial, at, mask, n_partials, partial_size, NP: tl.constexpr):
    """Σ over programs, in a fixed order: the same result in every run."""
    total = tl.zeros(at.shape, tl.float32)
    for first in range(0, n_partials, NP):
        which = first + tl.arange(0, NP)
        tile = tl.load(
            partial + which.to(tl.int64)[:, None, None] * partial_size + at[None, :, :],
            mask=(which < n_partials)[:, None, None] & mask[None, :, :],
            other=0.0,
        )
        total += tl.sum(tile, axis=0)
    return total


@triton.jit
def _rows(n_rows, D: tl.constexpr, DP: tl.constexpr, ROWS: tl.constexpr):
    """This program's vectors of parents, one row for each sample and parent: offsets, mask, row numbers."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    d = tl.arange(0, DP)
    return row[:, None] * D + d[None, :], (row < n_rows)[:, None] & (d < D)[None, :], row


@triton.jit
def finish_iteration(
    partial,
    bias,
    s_all,
    v_sum,
    v_out,
    iteration,
    n_partials,
    n_rows,
    J: tl.constexpr,
    D: tl.constexpr,
    DP: tl.constexpr,
    ROWS: tl.constexpr,
    NP: tl.constexpr,
    BIAS: tl.constexpr,
    LAST: tl.constexpr,
):
    """s = Σ partial + bias, into s_all[iteration]; v = squash(s); v_sum = Σ v so far, for the next logits."""
    at, mask, row = _rows(n_rows, D, DP, ROWS)
    s = _sum_partials(partial, at, mask, n_partials, n_rows * D, NP)
    if BIAS:
        d = tl.arange(0, DP)
        s += tl.load(bias + (row % J)[:, None] * D + d[None, :], mask=mask, other=0.0).to(tl.float32)
    tl.store(s_all + iteration * n_rows * D + at, s, mask=mask)
    v = _squash(s)
    if LAST:
        tl.store(v_out + at, v.to(v_out.dtype.element_ty), mask=mask)
    else:
        for t in range(iteration):
            v += _squash(tl.load(s_all + t * n_rows * D + at, mask=mask, other=0.0))
        tl.store(v_sum + at, v.to(v_sum.dtype.element_ty), mask=mask)


@triton.jit
def start_backward(
    dv,
    s_all,
    v_sums,
    ds_last,
    n_rows,
    D: tl.constexpr,
    DP: tl.constexpr,
    ROWS: tl.constexpr,
    ITERATIONS: tl.constexpr,
):
    """V of every iteration from the saved sums, and ds of the last one."""
    at, mask, _ = _rows(n_rows, D, DP, ROWS)
    v_sum = tl.zeros((ROWS, DP), tl.float32)
    for _ in tl.static_range(ITERATIONS - 1):
        tl.store(v_sums + at, v_sum.to(v_sums.dtype.element_ty), mask=mask)
        v_sum += _squash(tl.load(s_all + at, mask=mask, other=0.0))
        v_sums += n_rows * D
        s_all += n_rows * D
    tl.store(v_sums + at, v_sum.to(v_sums.dtype.element_ty), mask=mask)
    s = tl.load(s_all + at, mask=mask, other=0.0)
    ds = _squash_backward(s, tl.load(dv + at, mask=mask, other=0.0).to(tl.float32))
    tl.store(ds_last + at, ds.to(ds_last.dtype.element_ty), mask=mask)


@triton.jit
def step_backward(
    partial,
    s,
    dv_sum,
    ds,
    n_partials,
    n_rows,
    D: tl.constexpr,
    DP: tl.constexpr,
    ROWS: tl.constexpr,
    NP: tl.constexpr,
    FIRST: tl.constexpr,
):
    """dv_sum += Σ partial, what later iterations ask of this one's v; ds is its gradient through squash."""
    at, mask, _ = _rows(n_rows, D, DP, ROWS)
    dv = _sum_partials(partial, at, mask, n_partials, n_rows * D, NP)
    if not FIRST:
        dv += tl.load(dv_sum + at, mask=mask, other=0.0)
    tl.store(dv_sum + at, dv, mask=mask)
    grad = _squash_backward(tl.load(s + at, mask=mask, other=0.0), dv)
    tl.store(ds + at, grad.to(ds.dtype.element_ty), mask=mask)


@triton.jit
def input_gradients(
    u,
    w,
    v_sums,
    ds_all,
    log_totals,
    mean_dcs,
    du,
    dw,
    n_samples,
    n_children,
    C: tl.constexpr,
    J: tl.constexpr,
    D: tl.constexpr,
    CP: tl.constexpr,
    DP: tl.constexpr,
    BB: tl.constexpr,
    ICH: tl.constexpr,
    ITERATIONS: tl.constexpr,
    THROUGH_COUPLINGS: tl.constexpr,
    LEAKY: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """du and dW of ICH children for all samples, from V, ds and the softmax's totals of every iteration.

    dû_bij = Σ_t c^t_bij ds^t_bj + db^t_bij V^t_bj, pulled back through W_i for du, times u for dW.
    """
    KK: tl.constexpr = ICH * CP
    first = tl.program_id(0) * ICH
    row, exists = _columns(first, n_children, C, CP, KK)
    child = first + tl.arange(0, ICH)
    d = tl.arange(0, DP)
    dw_mask = exists[:, None] & (d < D)[None, :]
    for b in range(0, n_samples, BB):
        sample = b + tl.arange(0, BB)
        children = _load_children(u, sample, row, exists, n_samples, n_children * C)
        grad = tl.zeros((BB, KK), tl.float32)
        log_total_tiles = ()
        mean_tiles = ()
        mask = (sample < n_samples)[:, None] & (child < n_children)[None, :]
        for t in tl.static_range(1, ITERATIONS):
            if THROUGH_COUPLINGS or t == ITERATIONS - 1:
                at = ((t - 1) * n_samples + sample).to(tl.int64)[:, None] * n_children + child[None, :]
                log_total_tiles = log_total_tiles + (tl.load(log_totals + at, mask=mask, other=0.0),)
                mean_tiles = mean_tiles + (tl.load(mean_dcs + at, mask=mask, other=0.0),)
            else:
                log_total_tiles = log_total_tiles + (0.0,)
                mean_tiles = mean_tiles + (0.0,)
        for j in range(J):
            weight = _load_weight(w, row, exists, j, J, D, DP)
            dw_tile = tl.zeros((KK, DP), tl.float32)
            if THROUGH_COUPLINGS or ITERATIONS == 1:
                uniform: tl.constexpr = 1.0 / (J + 1 if LEAKY else J)
                x = _load_parent(ds_all, sample, j, n_samples, J, D, DP)
                grad += uniform * _pull_back(x, weight, PRECISION)
                dw_tile = uniform * _dot(tl.trans(children), x, dw_tile, PRECISION)
            for t in tl.static_range(1, ITERATIONS):
                if THROUGH_COUPLINGS or t == ITERATIONS - 1:
                    offset = t * n_samples * (J * D)
                    v = _load_parent(v_sums + offset, sample, j, n_samples, J, D, DP)
                    x = _load_parent(ds_all + offset, sample, j, n_samples, J, D, DP)
                    back_v = _pull_back(v, weight, PRECISION)
                    back_x = _pull_back(x, weight, PRECISION)
                    logit = _per_child(children * back_v, BB, ICH, CP)
                    coupling = tl.exp(logit - log_total_tiles[t - 1])
                    spread = _spread(coupling, BB, ICH, CP)
                    grad += spread * back_x
                    scaled = tl.trans((spread * children).to(v.dtype))
                    dw_tile = _dot(scaled, x, dw_tile, PRECISION)
                    if THROUGH_COUPLINGS:
                        dc = _per_child(children * back_x, BB, ICH, CP)
                        spread = _spread(coupling * (dc - mean_tiles[t - 1]), BB, ICH, CP)
                        grad += spread * back_v
                        scaled = tl.trans((spread * children).to(v.dtype))
                        dw_tile = _dot(scaled, v, dw_tile, PRECISION)
            dw_at = dw + row[:, None] * (J * D) + j * D + d[None, :]
            if b > 0:
                dw_tile += tl.load(dw_at, mask=dw_mask, other=0.0)
            tl.store(dw_at, dw_tile, mask=dw_mask)
        mask = (sample < n_samples)[:, None] & exists[None, :]
        at = sample.to(tl.int64)[:, None] * (n_children * C) + row[None, :]
        tl.store(du + at, grad.to(du.dtype.element_ty), mask=mask)
        # the next block of samples reads dW back, perhaps in other threads than wrote it
        tl.debug_barrier()
