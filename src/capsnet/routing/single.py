"""The forward reduction for a single sample, whose block would leave 15 lanes empty: lanes are columns of W here.

Every number comes from the same operations in the same order as in a lane of `kernels.sum_over_children`, so a
sample has the same bits whether it is routed alone or in a batch.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from capsnet.routing.lanes import kernel
from capsnet.routing.simd import LANES, broadcast, exp, fma, fma_number, load, number, splat, store, sub

_ZERO, _ONE = np.float32(0), np.float32(1)


@kernel()
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
    for n in range(width):
        v[n] = V[at + n * LANES]
    for i in range(child_lo, child_hi):
        for k in range(in_dim):
            x[k] = u[sample, i, k]
        if uniform:
            _multiply_row(w, i * in_dim * width, x, in_dim, width, False, s)
            continue
        _multiply_row(w, i * in_dim * width, x, in_dim, width, True, votes)
        largest = _ZERO
        for j in range(parents):
            logit = _ZERO
            for n in range(j * dim, (j + 1) * dim):
                logit = fma_number(number(votes, n), number(v, n), logit)
            c[j] = logit
            if logit > largest or (j == 0 and not leaky):
                largest = logit
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
    for n in range(width):
        out[at + n * LANES] = s[n]


@kernel()
def _exponentiate(logits: Any, parents: int, largest: Any, leaky: bool) -> Any:
    """Logits become e^(logit − largest), in place; returns 1 / their sum."""
    logits[parents] = _ZERO  # nobody's
    for j in range(0, parents + 1, LANES):
        store(logits, j, exp(sub(load(logits, j), splat(largest))))
    z = logits[parents] if leaky else _ZERO
    for j in range(parents):
        z += logits[j]
    return _ONE / z


@kernel()
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
