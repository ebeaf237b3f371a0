"""The convolution by points (see points.py): planes of inputs, weights and outputs, and the products of planes.

    forward   M[r] = X[r] W[r]ᵀ                 X (batch, K)   W (out, K)   M (batch, out)
    backward  dX[r] = dM[r] W[r]    dW[r] = dM[r]ᵀ X[r]

for every plane r; K runs over the phases of the input and its channels. Channels come in blocks: all phases of
one block are adjacent in K, so that the backward pass needs dX and dW for one block at a time only.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from capsnet.convolution import buffers, kernels
from capsnet.convolution.threads import Job, run
from capsnet.convolution.winograd import EXPAND_INPUT, EXPAND_OUTPUT, EXPAND_WEIGHT, Axis, Matrix, Plan, plan

_NO_MASK = np.empty(0, np.uint8)
Side = tuple[tuple[Any, ...], tuple[Any, ...]]  # the kernels' `side` and `plan`: matrices, points and phases


@dataclass(frozen=True)
class Planes:
    """A tensor's values at the points: `storage` holds one (planes, items, phases·channels) array per group."""

    storage: Float[Tensor, " n"]
    plan: Plan
    items: int
    channels: int

    @classmethod
    def empty(cls, plan: Plan, items: int, channels: int) -> Planes:
        """Room for inputs (items = batch) or weights (items = output channels)."""
        return cls(buffers.take(plan.products * items * channels), plan, items, channels)

    def groups(self, start: int = 0, stop: int | None = None) -> list[Float[Tensor, "planes items k"]]:
        """Each group's array, cut to the blocks of channels from `start` to `stop`."""
        stop, at, views = self.channels if stop is None else stop, 0, []
        for first, end, phases in self.plan.groups:
            size = (end - first) * self.items * phases * self.channels
            view = self.storage[at : at + size].view(end - first, self.items, phases * self.channels)
            views.append(view[..., phases * start : phases * stop])
            at += size
        return views

    def layout(self, item: int = 0) -> NDArray[np.int64]:
        """Per plane: where the numbers of one item begin, the stride of an item, the number of phases."""
        found = self._layout.copy()
        found[:, 0] += item * found[:, 1]
        return found

    @functools.cached_property
    def _layout(self) -> NDArray[np.int64]:
        at, rows = 0, []
        for first, end, phases in self.plan.groups:
            k = phases * self.channels
            rows += [(at + r * self.items * k, k, phases) for r in range(end - first)]
            at += (end - first) * self.items * k
        return np.array(rows)


def blocks(channels: int) -> list[tuple[int, int]]:
    """Start and stop of each block of channels."""
    width = kernels.BLOCK
    return [(start, min(start + width, channels)) for start in range(0, channels, width)]


class Convolution:
    """The algorithm for one geometry. Its methods return jobs: see threads.run."""

    def __init__(self, plan: Plan) -> None:
        y, x = plan.y, plan.x
        self.plan = plan
        self.outputs = y.outputs, x.outputs
        no_phases = np.zeros((1, plan.planes), np.int64)
        self._input = _side(plan, y.input, x.input, EXPAND_INPUT, plan.slots)
        self._weight = _side(plan, y.weight, x.weight, EXPAND_WEIGHT, plan.slots)
        self._output = _side(plan, (y.output,), (x.output,), EXPAND_OUTPUT, no_phases)

    def covers(self, height: int, width: int) -> bool:
        """Whether every row and column of the input takes part; where not, its gradient there is 0."""
        return _covered(self.plan.y) == height and _covered(self.plan.x) == width

    def analyse_input(
        self, x: Float[Tensor, "n channels h w"], planes: Planes, first: int = 0, mask: Tensor | None = None
    ) -> Job:
        """Values of images first … of a batch at the points; with a mask, of relu(x), and it fills the mask."""
        return _analyse(x, mask, self._input, planes.storage, planes.layout(first))

    def analyse_weight(self, weight: Float[Tensor, "out channels k1 k2"], planes: Planes) -> Job:
        """Values of the kernels at the points."""
        return _analyse(weight, None, self._weight, planes.storage, planes.layout())

    def analyse_output(
        self, y: Float[Tensor, "batch out rows columns"], planes: Float[Tensor, "planes batch out"]
    ) -> Job:
        """The transpose of `synthesise_output`: gradient of the outputs → of their planes."""
        return _analyse(y, None, self._output, planes, _dense_layout(planes))

    def synthesise_output(
        self, planes: Float[Tensor, "planes batch out"], bias: Float[Tensor, " out"] | None, y: Tensor
    ) -> Job:
        """Planes of the outputs → outputs (batch, out, rows, columns), with the bias."""
        return _synthesise(planes, _dense_layout(planes), self._output, y, None, bias)

    def synthesise_input(
        self, planes: Planes, x: Float[Tensor, "batch channels h w"], mask: Tensor | None
    ) -> Job:
        """The transpose of `analyse_input`; with a mask, 0 where it is 0."""
        return _synthesise(planes.storage, planes.layout(), self._input, x, mask, None)

    def synthesise_weight(self, planes: Planes, weight: Float[Tensor, "out channels k1 k2"]) -> Job:
        """The transpose of `analyse_weight`."""
        return _synthesise(planes.storage, planes.layout(), self._weight, weight, None, None)

    def products(self, left: list[Tensor], right: list[Tensor], out: list[Tensor]) -> Job:
        """out[r] = left[r] right[r] for the planes r of each group."""

        def work(start: int, stop: int) -> None:
            for (first, end, _), a, b, c in zip(self.plan.groups, left, right, out, strict=True):
                lo, hi = max(start, first) - first, min(stop, end) - first
                if lo < hi:
                    torch.bmm(a[lo:hi], b[lo:hi], out=c[lo:hi])

        return Job(work, self.plan.planes)

    def split(self, planes: Float[Tensor, "planes batch out"]) -> list[Tensor]:
        """The planes of outputs by groups."""
        return [planes[first:end] for first, end, _ in self.plan.groups]

    def forward(
        self, planes: Planes, weight: Planes, bias: Float[Tensor, " out"] | None
    ) -> Float[Tensor, "batch out rows columns"]:
        """Planes of inputs and weights → outputs."""
        m = buffers.take(self.plan.planes, planes.items, weight.items)
        run(self.products(planes.groups(), [w.mT for w in weight.groups()], self.split(m)))
        y = m.new_empty(planes.items, weight.items, *self.outputs)
        run(self.synthesise_output(m, bias, y))
        return y

    def backward(
        self,
        grad: Float[Tensor, "batch out rows columns"],
        planes: Planes,
        weight: Planes,
        grad_x: Float[Tensor, "batch channels h w"] | None,
        grad_weight: Float[Tensor, "out channels k1 k2"] | None,
        mask: Float[Tensor, "batch channels h w"] | None = None,
    ) -> None:
        """Fills the gradients of inputs and weights, those that are wanted."""
        m = buffers.take(self.plan.planes, planes.items, weight.items)
        run(self.analyse_output(grad.contiguous(), m))
        if grad_x is not None and not self.covers(*grad_x.shape[2:]):
            grad_x.zero_()
        for start, stop in blocks(planes.channels):
            multiply, collect = [], []
            if grad_x is not None:
                gx = Planes.empty(self.plan, planes.items, stop - start)
                part = None if mask is None else mask[:, start:stop]
                multiply.append(self.products(self.split(m), weight.groups(start, stop), gx.groups()))
                collect.append(self.synthesise_input(gx, grad_x[:, start:stop], part))
            if grad_weight is not None:
                gw = Planes.empty(self.plan, weight.items, stop - start)
                transposed = [g.mT for g in self.split(m)]
                multiply.append(self.products(transposed, planes.groups(start, stop), gw.groups()))
                collect.append(self.synthesise_weight(gw, grad_weight[:, start:stop]))
            run(*multiply)
            run(*collect)


@functools.lru_cache(maxsize=16)
def convolution(height: int, width: int, kernel: tuple[int, int], stride: tuple[int, int]) -> Convolution:
    """The algorithm for a geometry, built once. Raises ValueError where there is none (see points.axis)."""
    return Convolution(plan(height, width, kernel, stride))


def _covered(axis: Axis) -> int:
    return max(phase + axis.stride * (samples - 1) + 1 for phase, samples in enumerate(axis.samples))


def _side(
    plan: Plan, y: tuple[Matrix, ...], x: tuple[Matrix, ...], expand: NDArray[Any], slots: NDArray[Any]
) -> Side:
    lengths = np.zeros((2, max(len(y), len(x))), np.int64)
    for row, matrices in zip(lengths, (y, x), strict=True):
        row[: len(matrices)] = [m.shape[1] for m in matrices]
    return (_stack(y), _stack(x), lengths, expand), (plan.ops, slots, len(y), len(x))


def _stack(matrices: tuple[Matrix, ...]) -> NDArray[np.float32]:
    stacked = np.zeros((len(matrices), len(matrices[0]), max(m.shape[1] for m in matrices)), np.float32)
    for out, matrix in zip(stacked, matrices, strict=True):
        out[:, : matrix.shape[1]] = matrix
    return stacked


def _memory(x: Tensor) -> NDArray[Any]:
    """All memory from a tensor's first element on, whatever its strides."""
    length = 1 + sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True))
    return x.detach().as_strided((length,), (1,)).numpy()


def _dense_layout(planes: Float[Tensor, "planes items channels"]) -> NDArray[np.int64]:
    count, items, channels = planes.shape
    return np.array([(r * items * channels, channels, 1) for r in range(count)])


def _tasks(x: Float[Tensor, "items channels h w"], side: Side) -> int:
    grid_y, grid_x = side[1][2:]
    return len(x) * int(grid_y) * int(grid_x) * -(-x.shape[1] // kernels.LANES)


def _analyse(x: Tensor, mask: Tensor | None, side: Side, planes: Tensor, layout: NDArray[np.int64]) -> Job:
    place = (x.shape[1], *x.stride(), mask is not None)
    src, passed = _memory(x), _NO_MASK if mask is None else _memory(mask)
    flat = planes.view(-1).numpy()

    def work(start: int, stop: int) -> None:
        kernels.analyse(src, place, passed, *side, flat, layout, start, stop)

    return Job(work, _tasks(x, side))


def _synthesise(
    planes: Tensor, layout: NDArray[np.int64], side: Side, x: Tensor, mask: Tensor | None, bias: Tensor | None
) -> Job:
    place = (x.shape[1], *x.stride(), mask is not None)
    dst, passed = _memory(x), _NO_MASK if mask is None else _memory(mask)
    flat = planes.view(-1).numpy()
    shift = np.zeros(x.shape[1], np.float32) if bias is None else bias.detach().contiguous().numpy()

    def work(start: int, stop: int) -> None:
        kernels.synthesise(flat, layout, *side, dst, place, passed, shift, start, stop)

    return Job(work, _tasks(x, side))
