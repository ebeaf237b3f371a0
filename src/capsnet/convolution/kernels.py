"""The transforms: small constant matrices applied to LANES channels at a time, so that they stay in L1 cache.

`analyse` takes tensors to planes (see points.py), `synthesise` is its transpose; inputs, weights and outputs
differ only in matrices and strides. Both handle the tasks start … stop − 1, so that threads can share them.
"""

from __future__ import annotations

import numpy as np

from capsnet._support.numba_compiler import compiled

LANES = 64
BLOCK = 64  # channels whose phases are adjacent in a plane's rows; a multiple of LANES


@compiled()
def _combine(matrix, transposed, rows, cols, src, dst, width):  # type: ignore[no-untyped-def]
    """dst[r] = Σ_c matrix[r, c] src[c], each entry `width` contiguous numbers; five terms per pass."""
    x, y = src[: cols * width].reshape(cols, width), dst[: rows * width].reshape(rows, width)
    zero = np.float32(0)
    for r in range(rows):
        for c in range(0, cols, 5):
            c1, c2 = min(c + 1, cols - 1), min(c + 2, cols - 1)
            c3, c4 = min(c + 3, cols - 1), min(c + 4, cols - 1)
            if transposed:
                m0, m1, m2, m3, m4 = matrix[c, r], matrix[c1, r], matrix[c2, r], matrix[c3, r], matrix[c4, r]
            else:
                m0, m1, m2, m3, m4 = matrix[r, c], matrix[r, c1], matrix[r, c2], matrix[r, c3], matrix[r, c4]
            m1 = m1 if c + 1 < cols else zero
            m2 = m2 if c + 2 < cols else zero
            m3 = m3 if c + 3 < cols else zero
            m4 = m4 if c + 4 < cols else zero
            if c == 0:
                for i in range(width):
                    y[r, i] = m0 * x[c, i] + m1 * x[c1, i] + m2 * x[c2, i] + m3 * x[c3, i] + m4 * x[c4, i]
            else:
                for i in range(width):
                    y[r, i] += m0 * x[c, i] + m1 * x[c1, i] + m2 * x[c2, i] + m3 * x[c3, i] + m4 * x[c4, i]


@compiled()
def _swap(src, dst, rows, cols):  # type: ignore[no-untyped-def]
    """Exchange the two outer axes of (rows, cols, LANES), so that the next `_combine` runs along the other."""
    x = src[: rows * cols * LANES].reshape(rows, cols, LANES)
    y = dst[: rows * cols * LANES].reshape(cols, rows, LANES)
    for r in range(rows):
        for c in range(cols):
            for k in range(LANES):
                y[c, r, k] = x[r, c, k]


@compiled()
def _load(src, base, sizes, strides, s_channel, lanes, relu, mask, x):  # type: ignore[no-untyped-def]
    """One phase of LANES channels into x; with a ReLU, which also writes to `mask` where it let a value pass."""
    for i in range(sizes[0]):
        for j in range(sizes[1]):
            at, to = base + i * strides[0] + j * strides[1], i * sizes[1] + j
            if relu:
                dense, passed = src[at : at + lanes], mask[at : at + lanes]
                for k in range(lanes):
                    value = dense[k]
                    x[to, k] = np.float32(0) if value <= 0 else value
                    passed[k] = value > 0
            elif s_channel == 1:
                dense = src[at : at + lanes]
                for k in range(lanes):
                    x[to, k] = dense[k]
            else:
                for k in range(lanes):
                    x[to, k] = src[at + k * s_channel]


@compiled()
def _store(x, dst, base, sizes, strides, s_channel, lanes, relu, mask, shift):  # type: ignore[no-untyped-def]
    """The reverse of `_load`: with a ReLU, 0 where `mask` is 0, else plus the channel's shift."""
    for i in range(sizes[0]):
        for j in range(sizes[1]):
            to, at = base + i * strides[0] + j * strides[1], i * sizes[1] + j
            if relu:
                dense, passed = dst[to : to + lanes], mask[to : to + lanes]
                for k in range(lanes):
                    dense[k] = x[at, k] if passed[k] else np.float32(0)
            elif s_channel == 1:
                dense = dst[to : to + lanes]
                for k in range(lanes):
                    dense[k] = x[at, k] + shift[k]
            else:
                for k in range(lanes):
                    dst[to + k * s_channel] = x[at, k] + shift[k]


@compiled()
def _begins(layout, r, slot, where):  # type: ignore[no-untyped-def]
    """Where the numbers of plane r begin, and how far it is to the next plane. where: item, channel, channels."""
    item, channel, channels, _ = where
    block = channel // BLOCK * BLOCK
    wide = min(BLOCK, channels - block)
    begin = layout[r, 0] + item * layout[r, 1] + layout[r, 2] * block + slot * wide + channel - block
    return begin, layout[min(r + 1, len(layout) - 1), 0] - layout[r, 0]


@compiled()
def _spread(u, ops, slots, expand, layout, where, planes):  # type: ignore[no-untyped-def]
    """The coordinates of one task's points → its numbers in the planes."""
    lanes = where[3]
    for o in range(len(ops)):
        kind, r, d0, d1, d2, d3 = ops[o, 0], ops[o, 1], ops[o, 2], ops[o, 3], ops[o, 4], ops[o, 5]
        if slots[r] < 0:
            continue
        to, step = _begins(layout, r, slots[r], where)
        if kind == 0:
            p = planes[to : to + lanes]
            for k in range(lanes):
                p[k] = u[d0, k]
            continue
        for plane in range(3):
            re, im = expand[plane, 0], expand[plane, 1]
            p = planes[to + plane * step : to + plane * step + lanes]
            if kind == 1:
                for k in range(lanes):
                    p[k] = re * u[d0, k] + im * u[d1, k]
            else:
                q = planes[to + (plane + 3) * step : to + (plane + 3) * step + lanes]
                for k in range(lanes):
                    p[k] = re * (u[d0, k] - u[d3, k]) + im * (u[d1, k] + u[d2, k])
                    q[k] = re * (u[d0, k] + u[d3, k]) + im * (u[d2, k] - u[d1, k])


@compiled()
def _gather(u, ops, slots, expand, layout, where, planes):  # type: ignore[no-untyped-def]
    """The transpose of `_spread`."""
    lanes = where[3]
    e0, e1, e2 = expand[0, 0], expand[1, 0], expand[2, 0]
    f0, f1, f2 = expand[0, 1], expand[1, 1], expand[2, 1]
    for o in range(len(ops)):
        kind, r, d0, d1, d2, d3 = ops[o, 0], ops[o, 1], ops[o, 2], ops[o, 3], ops[o, 4], ops[o, 5]
        if slots[r] < 0:  # this phase leaves ∞ out
            for k in range(lanes):
                u[d0, k] = u[d1, k] = u[d2, k] = u[d3, k] = np.float32(0)
            continue
        to, step = _begins(layout, r, slots[r], where)
        v0 = planes[to : to + lanes]
        if kind == 0:
            for k in range(lanes):
                u[d0, k] = v0[k]
            continue
        v1, v2 = planes[to + step : to + step + lanes], planes[to + 2 * step : to + 2 * step + lanes]
        if kind == 1:
            for k in range(lanes):
                u[d0, k] = e0 * v0[k] + e1 * v1[k] + e2 * v2[k]
                u[d1, k] = f0 * v0[k] + f1 * v1[k] + f2 * v2[k]
            continue
        v3, v4 = planes[to + 3 * step : to + 3 * step + lanes], planes[to + 4 * step : to + 4 * step + lanes]
        v5 = planes[to + 5 * step : to + 5 * step + lanes]
        for k in range(lanes):
            re, im = e0 * v0[k] + e1 * v1[k] + e2 * v2[k], f0 * v0[k] + f1 * v1[k] + f2 * v2[k]
            re2, im2 = e0 * v3[k] + e1 * v4[k] + e2 * v5[k], f0 * v3[k] + f1 * v4[k] + f2 * v5[k]
            u[d0, k], u[d3, k] = re + re2, re2 - re
            u[d1, k], u[d2, k] = im - im2, im + im2


@compiled()
def analyse(src, place, mask, side, plan, planes, layout, start, stop):  # type: ignore[no-untyped-def]
    """Tensor → planes: evaluate at the points, and split complex values in three.

    A task is one (item, phase, LANES channels). place: (channels, strides of item, channel, row and column,
    ReLU?). side, plan: see spectral.py. layout: per plane its offset, the stride of an item, and how many phases
    a block of channels has.

    Inner loops run over slices from 0, since an index that could be negative keeps the compiler from vectors.
    """
    channels, s_item, s_channel, s_row, s_column, relu = place
    my, mx, lengths, expand = side
    ops, slots, grid_y, grid_x = plan
    ny, nx = my.shape[1], mx.shape[1]
    chunks, phases = (channels + LANES - 1) // LANES, grid_y * grid_x
    area = max(ny, my.shape[2]) * max(nx, mx.shape[2])
    a, b = np.zeros(area * LANES, np.float32), np.zeros(area * LANES, np.float32)
    x, u, strides = a.reshape(area, LANES), b.reshape(area, LANES), (grid_y * s_row, grid_x * s_column)
    for task in range(start, stop):
        channel, phase, item = task % chunks * LANES, task // chunks % phases, task // chunks // phases
        py, px, lanes = phase // grid_x, phase % grid_x, min(LANES, channels - channel)
        sizes = lengths[0, py], lengths[1, px]
        base = item * s_item + channel * s_channel + py * s_row + px * s_column
        _load(src, base, sizes, strides, s_channel, lanes, relu, mask, x)
        _combine(my[py], False, ny, sizes[0], a, b, sizes[1] * LANES)
        _swap(b, a, ny, sizes[1])
        _combine(mx[px], False, nx, sizes[1], a, b, ny * LANES)
        _spread(u, ops, slots[phase], expand, layout, (item, channel, channels, lanes), planes)


@compiled()
def synthesise(planes, layout, side, plan, dst, place, mask, bias, start, stop):  # type: ignore[no-untyped-def]
    """Planes → tensor: the transpose of `analyse`, then + bias[channel]; with a ReLU, 0 where `mask` is 0."""
    channels, s_item, s_channel, s_row, s_column, relu = place
    my, mx, lengths, expand = side
    ops, slots, grid_y, grid_x = plan
    ny, nx = my.shape[1], mx.shape[1]
    chunks, phases = (channels + LANES - 1) // LANES, grid_y * grid_x
    area = max(ny, my.shape[2]) * max(nx, mx.shape[2])
    a, b = np.zeros(area * LANES, np.float32), np.zeros(area * LANES, np.float32)
    x, u, strides = a.reshape(area, LANES), b.reshape(area, LANES), (grid_y * s_row, grid_x * s_column)
    for task in range(start, stop):
        channel, phase, item = task % chunks * LANES, task // chunks % phases, task // chunks // phases
        py, px, lanes = phase // grid_x, phase % grid_x, min(LANES, channels - channel)
        sizes = lengths[0, py], lengths[1, px]
        _gather(u, ops, slots[phase], expand, layout, (item, channel, channels, lanes), planes)
        _combine(mx[px], True, sizes[1], nx, b, a, ny * LANES)
        _swap(a, b, sizes[1], ny)
        _combine(my[py], True, sizes[0], ny, b, a, sizes[1] * LANES)
        base = item * s_item + channel * s_channel + py * s_row + px * s_column
        _store(x, dst, base, sizes, strides, s_channel, lanes, relu, mask, bias[channel : channel + lanes])


@compiled()
def gather_patches(images, kernel_y, kernel_x, stride_y, stride_x, patches):  # type: ignore[no-untyped-def]
    """(batch, channels, height, width) → for each output place in order, its patch and a 1."""
    channels, columns = images.shape[1], (images.shape[3] - kernel_x) // stride_x + 1
    rows = (images.shape[2] - kernel_y) // stride_y + 1
    for item in range(images.shape[0]):
        for row in range(rows):
            for column in range(columns):
                patch = patches[(item * rows + row) * columns + column]
                for c in range(channels):
                    for i in range(kernel_y):
                        at = (c * kernel_y + i) * kernel_x
                        to = patch[at : at + kernel_x]
                        line = images[
                            item, c, row * stride_y + i, column * stride_x : column * stride_x + kernel_x
                        ]
                        for j in range(kernel_x):
                            to[j] = line[j]
                patch[channels * kernel_y * kernel_x] = 1


@compiled()
def differ(a, b, start, stop):  # type: ignore[no-untyped-def]
    """Whether words start … stop − 1 of two arrays differ anywhere. No early end: vector units would wait for it."""
    x, y, found = a[start:stop], b[start:stop], np.uint32(0)
    for i in range(len(x)):
        found |= x[i] ^ y[i]
    return found != 0
