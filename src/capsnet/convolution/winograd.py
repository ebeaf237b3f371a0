"""Winograd convolution: the Cook–Toom (Toom–Cook) algorithm along both axes, for large kernels with a stride.

Also known as Winograd's minimal filtering F(m, t) (Lavin and Gray, "Fast algorithms for convolutional neural networks",
2016). Here one tile covers the whole image, so most points are roots of unity.

1. A convolution with stride s is one with stride 1 over s² times as many channels: every s-th row and column of the
   input makes a channel of its own (`pixel_unshuffle`), and the kernel is cut up alike.
2. Along one axis, m outputs of a kernel with t taps come from n = m + t − 1 samples d. A product of polynomials with m
   and t coefficients follows from its values at n points. Transposing that algorithm gives the convolution

       y = Eᵀ [(G g) ⊙ (A d)],   E and G: powers of the points (Vandermonde),   A: transpose of the inverse of E for n

   with n products in place of m·t.
3. The points are 0, ∞, ±2, ±½ and roots of unity. Real points alone would amplify rounding errors; these keep them
   near 1e-6. Complex points come in conjugate pairs, and a pair takes three real products (Karatsuba).
4. In two dimensions the matrices are applied along both axes. Every pair of rows makes one *plane*: a matrix product
   over the channels for the whole batch. The paper's network needs 121 products of 1,024 channels per capsule channel,
   for 36 outputs with 81 taps and 256 channels: 6 times fewer.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from capsnet._support.threads import for_each
from capsnet.convolution.buffers import take, take_channels_last

Matrix = NDArray[np.float64]
Complex = NDArray[np.complexfloating]
Pair = tuple[int, int]

_BLOCK = 1 << 15  # numbers of a row that one thread transforms at once
# A complex value a + ib becomes three real ones, so that the three products add up to Re 2(x·w·e).
# Rows are the three, columns a and b. Inputs, weights, outputs.
_INPUT = np.array([[1.0, 1], [1, 0], [0, 1]])
_WEIGHT = np.array([[1.0, 0], [-1, 1], [1, 1]])
_OUTPUT = np.array([[2.0, -2], [0, -2], [-2, 0]])


@dataclass(frozen=True, eq=False)
class Axis:
    """The algorithm along one axis, in real numbers. A kernel's last taps may be padding."""

    outputs: int
    taps: int
    samples: int
    input: Float[Tensor, "rows samples"]
    weight: Float[Tensor, "rows taps"]
    output: Float[Tensor, "rows outputs"]


@functools.lru_cache(maxsize=64)
def axis(size: int, kernel: int, stride: int) -> Axis:
    """Return the algorithm for one axis of `size` samples.

    Raises:
        ValueError: the axis is too short: fewer than three samples after the stride.
    """
    outputs, taps = (size - kernel) // stride + 1, -(-kernel // stride)
    samples = outputs + taps - 1
    if outputs < 1 or samples < 3:
        raise ValueError(f"no fast algorithm for size {size}, kernel {kernel}, stride {stride}")
    points = _points(samples)
    inverse = np.linalg.inv(_powers(points, samples))
    return Axis(
        outputs,
        taps,
        samples,
        _real(inverse.T, points, _INPUT),
        _real(_powers(points, taps), points, _WEIGHT),
        _real(_powers(points, outputs), points, _OUTPUT),
    )


def _points(count: int) -> Complex:
    """Return distinct points, with the conjugate of each. Powers of ±2 and ±½ are accurate at moderate sizes only."""
    real = [0, np.inf, 2, -2, 0.5, -0.5] if 9 <= count <= 24 else [0, np.inf]
    roots = count - len(real)
    return np.concatenate([real, np.exp(2j * np.pi * np.arange(roots) / roots)])


def _powers(points: Complex, count: int) -> Complex:
    """Return the powers 0 … count − 1 of each point, one row per point. ∞ has the last coefficient only."""
    exponents = np.arange(count)
    return np.array([exponents == count - 1 if np.isinf(p) else p**exponents for p in points], np.complex128)


def _real(rows: Complex, points: Complex, expand: Matrix) -> Float[Tensor, "rows n"]:
    """Turn one complex row per point into one real row per real point and three per conjugate pair."""
    found = []
    for point, row in zip(points, rows, strict=True):
        if abs(point.imag) < 1e-9:
            found.append(row.real[None])
        elif point.imag > 0:
            found.append(expand @ np.stack([row.real, row.imag]))
    return torch.from_numpy(np.concatenate(found).astype(np.float32))


class Winograd:
    """The algorithm for one geometry: transforms, products of planes, and their transposes for the gradients."""

    def __init__(self, y: Axis, x: Axis, stride: Pair) -> None:
        self.y, self.x, self.stride = y, x, stride
        self.planes = len(y.input) * len(x.input)

    def prepare(self, weight: Float[Tensor, "out channels k1 k2"]) -> Float[Tensor, "planes out k"]:
        """Return the planes of a kernel; k runs over the stride's s² positions and the channels."""
        taps = _unshuffle(weight, self.stride, (self.y.taps, self.x.taps))
        return _transform(self.y.weight, self.x.weight, taps).view(self.planes, len(weight), -1)

    def forward(
        self,
        x: Float[Tensor, "batch channels h w"],
        weights: Float[Tensor, "planes out k"],
        bias: Float[Tensor, " out"] | None,
    ) -> tuple[Float[Tensor, "batch out rows columns"], Float[Tensor, "planes batch k"]]:
        """Return the outputs, and the planes of the inputs, which the backward pass needs."""
        batch, out = len(x), weights.shape[1]
        samples = _unshuffle(x, self.stride, (self.y.samples, self.x.samples))
        inputs = _transform(self.y.input, self.x.input, samples).view(self.planes, batch, -1)
        products = _multiply(inputs, weights.mT)
        sums = _transform(self.y.output.T, self.x.output.T, self._grid(products))
        y = x.new_empty(batch, out, self.y.outputs, self.x.outputs)
        y.copy_(sums.view(self.y.outputs, self.x.outputs, batch, out).permute(2, 3, 0, 1))
        return y if bias is None else y.add_(bias[:, None, None]), inputs

    def backward(
        self,
        grad: Float[Tensor, "batch out rows columns"],
        x: Float[Tensor, "batch channels h w"],
        weight: Float[Tensor, "out channels k1 k2"],
        planes: tuple[Tensor, Tensor],
        wanted: tuple[bool, bool],
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return the gradients of x and weight, those that are wanted. planes: of the weights and of the inputs."""
        weights, inputs = planes
        batch, out = grad.shape[:2]
        outputs = take(self.y.outputs, self.x.outputs, batch, out).copy_(grad.permute(2, 3, 0, 1))
        products = _transform(self.y.output, self.x.output, outputs).view(self.planes, batch, out)
        grad_x = grad_weight = None
        if wanted[0]:
            grad_planes = self._grid(_multiply(products, weights))
            grad_x = take_channels_last(*x.shape)
            samples = _transform(self.y.input.T, self.x.input.T, grad_planes)
            _shuffle(samples, grad_x, self.stride, (self.y.samples, self.x.samples))
            del grad_planes, samples  # their memory serves the next gradient
        if wanted[1]:
            grad_planes = self._grid(_multiply(products.mT, inputs))
            grad_weight = torch.empty_like(weight, memory_format=torch.contiguous_format)
            taps = _transform(self.y.weight.T, self.x.weight.T, grad_planes)
            _shuffle(taps, grad_weight, self.stride, (self.y.taps, self.x.taps))
        return grad_x, grad_weight

    def _grid(self, planes: Float[Tensor, "planes a b"]) -> Float[Tensor, "rows columns n"]:
        return planes.view(len(self.y.input), len(self.x.input), -1)


@functools.lru_cache(maxsize=64)
def winograd(size: Pair, kernel: Pair, stride: Pair) -> Winograd:
    """Return the algorithm for an input of size[0] × size[1]. Raises ValueError where `axis` does."""
    y, x = (axis(*numbers) for numbers in zip(size, kernel, stride, strict=True))
    return Winograd(y, x, stride)


def _transform(y: Tensor, x: Tensor, values: Float[Tensor, "rows columns ..."]) -> Float[Tensor, "r c n"]:
    """Apply one matrix along the rows and one along the columns."""
    rows, columns = values.shape[:2]
    values = values.view(rows, columns, -1)
    n = values.shape[2]
    half, out = take(len(y), columns, n), take(len(y), len(x), n)
    blocks = [(start, min(start + _BLOCK, n)) for start in range(0, n, _BLOCK)]

    def along_rows(column: int, start: int, stop: int) -> None:
        torch.mm(y, values[:, column, start:stop], out=half[:, column, start:stop])

    def along_columns(row: int, start: int, stop: int) -> None:
        torch.mm(x, half[row, :, start:stop], out=out[row, :, start:stop])

    for_each(along_rows, ((column, *block) for column in range(columns) for block in blocks))
    for_each(along_columns, ((row, *block) for row in range(len(y)) for block in blocks))
    return out


def _multiply(a: Float[Tensor, "n i k"], b: Float[Tensor, "n k j"]) -> Float[Tensor, "n i j"]:
    """Multiply plane by plane, each in one thread: the bits do not depend on the number of threads."""
    out = take(len(a), a.shape[1], b.shape[2])
    for_each(
        lambda plane: torch.mm(a[plane], b[plane], out=out[plane]), ((plane,) for plane in range(len(out)))
    )
    return out


def _unshuffle(
    values: Float[Tensor, "items channels h w"], stride: Pair, size: Pair
) -> Float[Tensor, "rows columns items s1 s2 channels"]:
    """Return (rows, columns, items, stride, stride, channels), cut or padded with zeros to `size`."""
    out = take(*size, len(values), *stride, values.shape[1])
    for i, j in np.ndindex(stride):
        part = values[:, :, i :: stride[0], j :: stride[1]][:, :, : size[0], : size[1]].permute(2, 3, 0, 1)
        out[: len(part), : part.shape[1], :, i, j] = part
        out[len(part) :, :, :, i, j] = 0
        out[:, part.shape[1] :, :, i, j] = 0
    return out


def _shuffle(
    values: Float[Tensor, "r c n"], out: Float[Tensor, "items channels h w"], stride: Pair, size: Pair
) -> None:
    """Fill `out`: the transpose of `_unshuffle`."""
    values = values.view(*size, len(out), *stride, out.shape[1])
    if any(s * n < length for s, n, length in zip(stride, size, out.shape[2:], strict=True)):
        out.zero_()  # rows or columns that take no part
    for i, j in np.ndindex(stride):
        part = out[:, :, i :: stride[0], j :: stride[1]][:, :, : size[0], : size[1]]
        part.copy_(values[: part.shape[2], : part.shape[3], :, i, j].permute(2, 3, 0, 1))
