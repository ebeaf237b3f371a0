"""The Triton kernels of routing: two for a pass over the children, forward or backward, and the last pass.

`triton_tiles` says how a pass multiplies, and names the sizes of tiles.
"""

# mypy: ignore-errors
# ruff: noqa: PLR0912, PLR0915, RUF005, SIM108  Triton's language: no annotations for tensors, no starred tuples

from __future__ import annotations

import triton
import triton.language as tl

from capsnet.routing.triton_tiles import (
    columns,
    dot,
    load_children,
    load_parent,
    load_weight,
    per_child,
    pull_back,
    rows,
    split,
    spread,
    squash,
    squash_backward,
    store_parts,
    sum_partials,
)

#: Exponentials are taken to base 2, the hardware's: exp x = exp2(x · LOG2_E).
LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def split_parts(x, out, size, plane, BLOCK: tl.constexpr, PARTS: tl.constexpr):
    """x in parts, as `dot` takes them."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = at < size
    store_parts(tl.load(x + at, mask=mask, other=0.0), out, plane, at, mask, PARTS)


@triton.jit
def sum_votes(
    u,
    w,
    w_plane,
    v_sum,
    ds,
    parent_plane,
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
    HOLD: tl.constexpr,
    UNIFORM: tl.constexpr,
    BACKWARD: tl.constexpr,
    LEAKY: tl.constexpr,
    PARTS: tl.constexpr,
):
    """Σ_i c_bij û_bij over this program's children (BACKWARD: Σ_i db_bij û_bij), into partial[program].

    BACKWARD also keeps what the last pass needs to find couplings and db again without a sum over parents:
    log₂ Σ_j exp b_bij, and Σ_j c_bij dc_bij, both (batch, in_caps). HOLD loads the parents' vectors once, and
    they occupy shared memory from then on; else they are loaded again for each tile of children.
    """
    KK: tl.constexpr = ICH * CP
    sample = tl.program_id(0) * BB + tl.arange(0, BB)
    first = tl.program_id(1) * children_per_program
    last = tl.minimum(first + children_per_program, n_children)
    sums = ()
    held = ()
    for j in tl.static_range(J):
        sums = sums + (tl.zeros((BB, DP), tl.float32),)
        if HOLD and not UNIFORM:
            held = held + (load_parent(v_sum, parent_plane, sample, j, n_samples, J, D, DP, PARTS),)
    if HOLD and BACKWARD:
        for j in tl.static_range(J):
            held = held + (load_parent(ds, parent_plane, sample, j, n_samples, J, D, DP, PARTS),)

    for i in range(first, last, ICH):
        row, exists = columns(i, last, C, CP, KK)
        children = load_children(u, sample, row, exists, n_samples, n_children * C)
        weights = ()
        for j in tl.static_range(J):
            weights = weights + (load_weight(w, w_plane, row, exists, j, J, D, DP, PARTS),)

        if UNIFORM:
            parts = split(children, PARTS)
            updated = ()
            for j in tl.static_range(J):
                updated = updated + (dot(parts, weights[j], sums[j], PARTS),)
            sums = updated
        else:
            logits = ()
            for j in tl.static_range(J):
                if HOLD:
                    v = held[j]
                else:
                    v = load_parent(v_sum, parent_plane, sample, j, n_samples, J, D, DP, PARTS)
                back_v = pull_back(v, weights[j], BB, KK, PARTS)
                logits = logits + (per_child(children * back_v, BB, ICH, CP),)
            largest = tl.zeros((BB, ICH), tl.float32) if LEAKY else logits[0]
            for j in tl.static_range(J):
                largest = tl.maximum(largest, logits[j])
            largest *= LOG2_E
            total = tl.exp2(-largest) if LEAKY else tl.zeros((BB, ICH), tl.float32)
            factors = ()
            for j in tl.static_range(J):
                factors = factors + (tl.exp2(logits[j] * LOG2_E - largest),)
                total += factors[j]
            if BACKWARD:
                dcs = ()
                mean = tl.zeros((BB, ICH), tl.float32)
                for j in tl.static_range(J):
                    if HOLD:
                        x = held[J + j]
                    else:
                        x = load_parent(ds, parent_plane, sample, j, n_samples, J, D, DP, PARTS)
                    back_x = pull_back(x, weights[j], BB, KK, PARTS)
                    dc = per_child(children * back_x, BB, ICH, CP)
                    dcs = dcs + (dc,)
                    mean += factors[j] * dcs[j]
                mean /= total
                child = i + tl.arange(0, ICH)
                at = sample.to(tl.int64)[:, None] * n_children + child[None, :]
                mask = (sample < n_samples)[:, None] & (child < last)[None, :]
                tl.store(log_total + at, largest + tl.log2(total), mask=mask)
                tl.store(mean_dc + at, mean, mask=mask)
                dbs = ()
                for j in tl.static_range(J):
                    dbs = dbs + (factors[j] * (dcs[j] - mean),)
                factors = dbs
            shares = children * spread(1.0 / total, BB, ICH, CP)
            updated = ()
            for j in tl.static_range(J):
                scaled = shares * spread(factors[j], BB, ICH, CP)
                updated = updated + (dot(split(scaled, PARTS), weights[j], sums[j], PARTS),)
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
    PARTS: tl.constexpr,
):
    """s = Σ partial + bias, into s_all[iteration]; v = squash(s); v_sum = Σ v so far, for the next logits."""
    at, mask, row = rows(n_rows, D, DP, ROWS)
    s = sum_partials(partial, at, mask, n_partials, n_rows * D, NP)
    if BIAS:
        d = tl.arange(0, DP)
        s += tl.load(bias + (row % J)[:, None] * D + d[None, :], mask=mask, other=0.0).to(tl.float32)
    tl.store(s_all + iteration * n_rows * D + at, s, mask=mask)
    v = squash(s)
    if LAST:
        tl.store(v_out + at, v.to(v_out.dtype.element_ty), mask=mask)
    else:
        for t in range(iteration):
            v += squash(tl.load(s_all + t * n_rows * D + at, mask=mask, other=0.0))
        store_parts(v, v_sum, n_rows * D, at, mask, PARTS)


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
    PARTS: tl.constexpr,
):
    """V of every iteration from the saved sums, and ds of the last one."""
    at, mask, _ = rows(n_rows, D, DP, ROWS)
    v_sum = tl.zeros((ROWS, DP), tl.float32)
    for _ in tl.static_range(ITERATIONS - 1):
        store_parts(v_sum, v_sums, ITERATIONS * n_rows * D, at, mask, PARTS)
        v_sum += squash(tl.load(s_all + at, mask=mask, other=0.0))
        v_sums += n_rows * D
        s_all += n_rows * D
    store_parts(v_sum, v_sums, ITERATIONS * n_rows * D, at, mask, PARTS)
    s = tl.load(s_all + at, mask=mask, other=0.0)
    ds = squash_backward(s, tl.load(dv + at, mask=mask, other=0.0).to(tl.float32))
    store_parts(ds, ds_last, ITERATIONS * n_rows * D, at, mask, PARTS)


@triton.jit
def step_backward(
    partial,
    s,
    dv_sum,
    ds,
    parent_plane,
    n_partials,
    n_rows,
    D: tl.constexpr,
    DP: tl.constexpr,
    ROWS: tl.constexpr,
    NP: tl.constexpr,
    FIRST: tl.constexpr,
    PARTS: tl.constexpr,
):
    """dv_sum += Σ partial, what later iterations ask of this one's v; ds is its gradient through squash."""
    at, mask, _ = rows(n_rows, D, DP, ROWS)
    dv = sum_partials(partial, at, mask, n_partials, n_rows * D, NP)
    if not FIRST:
        dv += tl.load(dv_sum + at, mask=mask, other=0.0)
    tl.store(dv_sum + at, dv, mask=mask)
    grad = squash_backward(tl.load(s + at, mask=mask, other=0.0), dv)
    store_parts(grad, ds, parent_plane, at, mask, PARTS)


@triton.jit
def input_gradients(
    u,
    w,
    w_plane,
    v_sums,
    ds_all,
    parent_plane,
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
    PARTS: tl.constexpr,
):
    """du and dW of ICH children for all samples, from V, ds and the softmax's totals of every iteration.

    dû_bij = Σ_t c^t_bij ds^t_bj + db^t_bij V^t_bj, pulled back through W_i for du, times u for dW.
    """
    KK: tl.constexpr = ICH * CP
    first = tl.program_id(0) * ICH
    row, exists = columns(first, n_children, C, CP, KK)
    child = first + tl.arange(0, ICH)
    d = tl.arange(0, DP)
    dw_mask = exists[:, None] & (d < D)[None, :]
    for b in range(0, n_samples, BB):
        sample = b + tl.arange(0, BB)
        children = load_children(u, sample, row, exists, n_samples, n_children * C)
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
            weight = load_weight(w, w_plane, row, exists, j, J, D, DP, PARTS)
            dw_tile = tl.zeros((KK, DP), tl.float32)
            if THROUGH_COUPLINGS or ITERATIONS == 1:
                uniform: tl.constexpr = 1.0 / (J + 1 if LEAKY else J)
                x = load_parent(ds_all, parent_plane, sample, j, n_samples, J, D, DP, PARTS)
                grad += uniform * pull_back(x, weight, BB, KK, PARTS)
                dw_tile = uniform * dot(split(tl.trans(children), PARTS), x, dw_tile, PARTS)
            for t in tl.static_range(1, ITERATIONS):
                if THROUGH_COUPLINGS or t == ITERATIONS - 1:
                    v_of_t = v_sums + t * n_samples * (J * D)
                    ds_of_t = ds_all + t * n_samples * (J * D)
                    v = load_parent(v_of_t, parent_plane, sample, j, n_samples, J, D, DP, PARTS)
                    x = load_parent(ds_of_t, parent_plane, sample, j, n_samples, J, D, DP, PARTS)
                    back_v = pull_back(v, weight, BB, KK, PARTS)
                    back_x = pull_back(x, weight, BB, KK, PARTS)
                    logit = per_child(children * back_v, BB, ICH, CP)
                    coupling = tl.exp2(logit * LOG2_E - log_total_tiles[t - 1])
                    onto_numbers = spread(coupling, BB, ICH, CP)
                    grad += onto_numbers * back_x
                    dw_tile = dot(split(tl.trans(onto_numbers * children), PARTS), x, dw_tile, PARTS)
                    if THROUGH_COUPLINGS:
                        dc = per_child(children * back_x, BB, ICH, CP)
                        onto_numbers = spread(coupling * (dc - mean_tiles[t - 1]), BB, ICH, CP)
                        grad += onto_numbers * back_v
                        dw_tile = dot(split(tl.trans(onto_numbers * children), PARTS), v, dw_tile, PARTS)
            dw_at = dw + row[:, None] * (J * D) + j * D + d[None, :]
            if b > 0:
                dw_tile += tl.load(dw_at, mask=dw_mask, other=0.0)
            tl.store(dw_at, dw_tile, mask=dw_mask)
        mask = (sample < n_samples)[:, None] & exists[None, :]
        at = sample.to(tl.int64)[:, None] * (n_children * C) + row[None, :]
        tl.store(du + at, grad.to(du.dtype.element_ty), mask=mask)
        # the next block of samples reads dW back, perhaps in other threads than wrote it
        tl.debug_barrier()
