"""The fast bilinear algorithm behind the spectral convolution, built once per geometry.

A stride-s convolution is a sum over the s×s *phases* of its input (every s-th row and column), each with its
own small kernel and no stride. Along one axis a phase with t taps and m outputs needs n = m + t − 1 samples.
Multiplying polynomials of m and t coefficients by evaluating both at n points, and transposing that algorithm,
gives the valid correlation

    y = Eₘᵀ [ (Eₜ g) ⊙ (Cᵀ d) ],      E_L[p, k] = αₚᵏ,   C = Eₙ⁻¹

with n products in place of m·t. The points are 0, ∞ and the (n−2)-th roots of unity: as well conditioned as a
DFT of size n, but with twice as many real points, and a phase that has one tap less simply leaves ∞ out.
Conjugate points are computed once; a complex product takes three real ones. In two dimensions the points
multiply, and every real product becomes one *plane*: a matrix product over (phase, channel) for the batch.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Table = NDArray[np.int64]

REAL, COMPLEX, PAIR = 0, 1, 2  # how many complex axes a product of points has
# A complex value z = a + ib becomes three real planes so that the three products of matching planes add up to
# Re 2(x·w·g): rows are planes, columns (a, b). Inputs, weights, outputs.
EXPAND_INPUT = np.array([[1, 1], [1, 0], [0, 1]], np.float32)
EXPAND_WEIGHT = np.array([[1, 0], [-1, 1], [1, 1]], np.float32)
EXPAND_OUTPUT = np.array([[2, -2], [0, -2], [-2, 0]], np.float32)


@dataclass(frozen=True)
class Axis:
    """One axis: the evaluation matrices of inputs, weights (both per phase) and outputs, in real coordinates.

    `points` lists (first row, is complex, is ∞); a complex point owns two rows, Re and Im.
    """

    outputs: int
    stride: int
    samples: tuple[int, ...]
    taps: tuple[int, ...]
    points: tuple[tuple[int, bool, bool], ...]
    input: tuple[Matrix, ...]
    weight: tuple[Matrix, ...]
    output: Matrix

    @property
    def size(self) -> int:
        """How many points, counting conjugates: the number of rows of every matrix."""
        return self.samples[0]

    def has(self, point: int, phase: int) -> bool:
        """Whether a phase uses a point: the phases with one tap less do not need ∞."""
        return not self.points[point][2] or self.samples[phase] == self.size


def _evaluate(length: int, roots: NDArray[np.complex128], infinity: bool) -> NDArray[np.complex128]:
    powers = np.arange(length)
    rows = [np.where(powers == 0, 1.0, 0.0)[None], roots[:, None] ** powers]
    if infinity:
        rows.insert(1, np.where(powers == length - 1, 1.0, 0.0)[None])
    return np.concatenate(rows).astype(np.complex128)


def _real_rows(values: NDArray[np.complex128], roots: NDArray[np.complex128], infinity: bool) -> Matrix:
    """Points 0, (∞), roots → real rows: 0, ∞ (zero when left out), real roots, then Re, Im of each pair."""
    head = 2 if infinity else 1
    gap = [] if infinity else [np.zeros((1, values.shape[1]))]
    rows = [values[:1].real, *([values[1:2].real] if infinity else gap)]
    upper = [i for i, root in enumerate(roots) if root.imag > 1e-9]
    rows += [values[head + i : head + i + 1].real for i, root in enumerate(roots) if abs(root.imag) <= 1e-9]
    for i in upper:
        rows += [values[head + i : head + i + 1].real, values[head + i : head + i + 1].imag]
    return np.concatenate(rows)


@functools.lru_cache(maxsize=64)
def axis(size: int, kernel: int, stride: int) -> Axis:
    """The algorithm for one axis of `size` samples, a kernel of `kernel` taps and a stride.

    Raises ValueError when the axis is too short: fewer than three samples in a phase.
    """
    outputs = (size - kernel) // stride + 1
    taps = tuple(-(-(kernel - phase) // stride) for phase in range(min(stride, kernel)))
    samples = tuple(outputs + t - 1 for t in taps)
    n = samples[0]
    if outputs < 1 or n < 3:
        raise ValueError(f"no fast algorithm for size {size}, kernel {kernel}, stride {stride}")
    roots = np.exp(2j * np.pi * np.arange(n - 2) / (n - 2))
    n_real = 2 + sum(abs(root.imag) <= 1e-9 for root in roots)
    points = [(row, False, row == 1) for row in range(n_real)]
    points += [(row, True, False) for row in range(n_real, n, 2)]
    full = [length == n for length in samples]
    inverses = [
        np.linalg.inv(_evaluate(s, roots, inf)).astype(np.complex128)
        for s, inf in zip(samples, full, strict=True)
    ]
    return Axis(
        outputs=outputs,
        stride=stride,
        samples=samples,
        taps=taps,
        points=tuple(points),
        input=tuple(_real_rows(c.T, roots, inf) for c, inf in zip(inverses, full, strict=True)),
        weight=tuple(_real_rows(_evaluate(t, roots, i), roots, i) for t, i in zip(taps, full, strict=True)),
        output=_real_rows(_evaluate(outputs, roots, True), roots, True),
    )


@dataclass(frozen=True)
class Plan:
    """Two axes and their planes, ordered so that planes which need the same phases lie together.

    ops: (kind, first plane, four coordinates column·n_y + row) per product of points, one row each.
    groups: (first plane, end plane, number of phases); slots: (phases, planes) position of a phase among those
    its plane uses, or −1.
    """

    y: Axis
    x: Axis
    ops: Table
    groups: tuple[tuple[int, int, int], ...]
    slots: Table

    @property
    def planes(self) -> int:
        """Real matrix products for one convolution."""
        return int(self.slots.shape[1])

    @property
    def products(self) -> int:
        """Multiply-adds per image and pair of channels: planes weighted by their phases."""
        return sum((stop - start) * phases for start, stop, phases in self.groups)


@functools.lru_cache(maxsize=64)
def plan(height: int, width: int, kernel: tuple[int, int], stride: tuple[int, int]) -> Plan:
    """The two-dimensional algorithm for an input of height×width. Raises ValueError where `axis` does."""
    y, x = axis(height, kernel[0], stride[0]), axis(width, kernel[1], stride[1])
    phases = [(a, b) for a in range(len(y.taps)) for b in range(len(x.taps))]
    found: dict[tuple[int, ...], list[tuple[int, list[int]]]] = {}
    for p, (row, row_complex, _) in enumerate(y.points):
        for q, (column, column_complex, _) in enumerate(x.points):
            slots = tuple(int(y.has(p, a) and x.has(q, b)) for a, b in phases)
            first = column * y.size + row
            down, right = first + row_complex, first + column_complex * y.size
            kind = row_complex + column_complex
            second = down if kind == COMPLEX and row_complex else right
            corners = [first, second, down, right + row_complex]
            found.setdefault(slots, []).append((kind, corners))
    ops, groups = [], []
    table: list[list[int]] = []
    for used in sorted(found, reverse=True):
        start, positions = len(table), [sum(used[:i]) if use else -1 for i, use in enumerate(used)]
        for kind, corners in found[used]:
            ops.append([kind, len(table), *corners])
            table += [positions] * (1, 3, 6)[kind]
        groups.append((start, len(table), sum(used)))
    return Plan(y, x, np.array(ops), tuple(groups), np.array(table).T.copy())
