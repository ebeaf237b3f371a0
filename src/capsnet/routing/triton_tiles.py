"""What routing's Triton kernels are made of: loads, products, sums, squash; all on tiles in registers.

Notation: P_bijc = Σ_d W_icjd X_bjd pulls a parent's vector X back through W to the child's side. A vote's
dot product with X is then a sum over the child's few numbers, û_bij · X_bj = Σ_c u_bic P_bijc, and sums
of votes over children are matrix products again, Σ_i a_bij û_bij = Σ_ic (a_bij u_bic) W_icjd. So every
heavy step is a matrix product whose inner size is out_dim, or children × in_dim, without padding the
child's 8 numbers to a tensor core's 16. As in flash attention, u plays query, and W holds keys and values.

A tile's columns are (child, number of that child), `KK = ICH · CP` of them: ICH children, and CP is in_dim
rounded up to a power of two. Masked children and samples are loaded as zeros and so add nothing.

What is multiplied is held in PARTS: one bfloat16 number, or three whose sum has all of float32's 24 bits.
"""

# mypy: ignore-errors
# ruff: noqa: RUF005  Triton's language: no annotations for tensors, no starred tuples

from __future__ import annotations

import os

import triton
import triton.language as tl

#: Triton's interpreter, which runs on the CPU, cannot multiply bfloat16.
INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")


@triton.jit
def columns(first, last, C: tl.constexpr, CP: tl.constexpr, KK: tl.constexpr):
    """Row of W's (in_caps · in_dim) axis for each column of a tile of children, and whether it exists."""
    k = tl.arange(0, KK)
    child = first + k // CP
    number = k % CP
    return child.to(tl.int64) * C + number, (child < last) & (number < C)


@triton.jit
def load_children(u, sample, row, exists, n_samples, row_size):
    """u of a tile: (BB, KK)."""
    mask = (sample < n_samples)[:, None] & exists[None, :]
    return tl.load(u + sample.to(tl.int64)[:, None] * row_size + row[None, :], mask=mask, other=0.0)


@triton.jit
def load_weight(
    w, w_plane, row, exists, j, J: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, PARTS: tl.constexpr
):
    """W of a tile of children and parent j: (KK, DP) for each part."""
    d = tl.arange(0, DP)
    mask = exists[:, None] & (d < D)[None, :]
    at = row[:, None] * (J * D) + j * D + d[None, :]
    parts = ()
    for part in tl.static_range(PARTS):
        parts = parts + (tl.load(w + part * w_plane + at, mask=mask, other=0.0),)
    return parts


@triton.jit
def load_parent(
    x, x_plane, sample, j, n_samples, J: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, PARTS: tl.constexpr
):
    """A vector for each sample and parent j: (BB, DP) for each part."""
    d = tl.arange(0, DP)
    mask = (sample < n_samples)[:, None] & (d < D)[None, :]
    at = (sample[:, None] * J + j) * D + d[None, :]
    parts = ()
    for part in tl.static_range(PARTS):
        parts = parts + (tl.load(x + part * x_plane + at, mask=mask, other=0.0),)
    return parts


@triton.jit
def split(x, PARTS: tl.constexpr):
    """x as a sum of bfloat16 numbers: three of them hold all of float32's 24 bits."""
    parts = ()
    rest = x.to(tl.float32)
    for _ in tl.static_range(PARTS):
        part = rest.to(tl.bfloat16)
        parts = parts + (part,)
        rest -= part.to(tl.float32)
    return parts


@triton.jit
def store_parts(x, out, plane, at, mask, PARTS: tl.constexpr):
    """Store x in parts, which lie `plane` apart."""
    parts = split(x, PARTS)
    for part in tl.static_range(PARTS):
        tl.store(out + part * plane + at, parts[part], mask=mask)


@triton.jit
def dot(a, b, total, PARTS: tl.constexpr):
    """total + a @ b for a and b in parts, summed in float32, the smallest products first.

    Of the nine products of three parts the six largest are taken: what is dropped is 2⁻²⁴ of the result.
    """
    for order in tl.static_range(PARTS):
        for part in tl.static_range(PARTS - order):
            if INTERPRETED:
                x, y = a[part].to(tl.float32), b[PARTS - 1 - order - part].to(tl.float32)
            else:
                x, y = a[part], b[PARTS - 1 - order - part]
            total = tl.dot(x, y, total)
    return total


@triton.jit
def pull_back(x, weight, BB: tl.constexpr, KK: tl.constexpr, PARTS: tl.constexpr):
    """P of a tile: (BB, DP), (KK, DP) → (BB, KK)."""
    transposed = ()
    for part in tl.static_range(PARTS):
        transposed = transposed + (tl.trans(weight[part]),)
    return dot(x, transposed, tl.zeros((BB, KK), tl.float32), PARTS)


@triton.jit
def per_child(tile, BB: tl.constexpr, ICH: tl.constexpr, CP: tl.constexpr):
    """Sum over each child's numbers: (BB, ICH · CP) → (BB, ICH)."""
    return tl.sum(tl.reshape(tile, (BB, ICH, CP)), axis=2)


@triton.jit
def spread(x, BB: tl.constexpr, ICH: tl.constexpr, CP: tl.constexpr):
    """One value per child onto each of the child's numbers: (BB, ICH) → (BB, ICH · CP)."""
    return tl.reshape(tl.broadcast_to(x[:, :, None], (BB, ICH, CP)), (BB, ICH * CP))


@triton.jit
def squash(s):
    """Equation 1 along the last axis, without a division by the length."""
    squared = tl.sum(s * s, axis=-1)
    return s * (tl.sqrt(squared) / (1.0 + squared))[:, None]


@triton.jit
def squash_backward(s, dv):
    """Gradient of `squash` at s: f·dv + (f′/n)(s·dv)·s with f = n / (1 + n²); 0 at s = 0."""
    squared = tl.sum(s * s, axis=-1)
    length = tl.sqrt(squared)
    slope = (1.0 - squared) / ((1.0 + squared) * (1.0 + squared))
    along = tl.sum(s * dv, axis=-1) * slope / tl.where(length > 0.0, length, 1.0)
    return dv * (length / (1.0 + squared))[:, None] + s * along[:, None]


@triton.jit
def sum_partials(partial, at, mask, n_partials, partial_size, NP: tl.constexpr):
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
def rows(n_rows, D: tl.constexpr, DP: tl.constexpr, ROWS: tl.constexpr):
    """This program's vectors of parents, one row for each sample and parent: offsets, mask, row numbers."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    d = tl.arange(0, DP)
    return row[:, None] * D + d[None, :], (row < n_rows)[:, None] & (d < D)[None, :], row
