"""`FastConv2d`: an `nn.Conv2d` that picks its own algorithm."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from capsnet._support import dispatch
from capsnet.convolution.choice import Algorithm, allowed, choose
from capsnet.convolution.winograd import Winograd

SLICE = 128  # images whose planes are alive at once, without gradients


class FastConv2d(nn.Conv2d):
    """`nn.Conv2d` with the same parameters, and outputs equal to float32 rounding, in less time on a CPU.

    The algorithm depends on the shapes only (see choice.py): the same batch gives the same bits. Padding, dilation,
    groups, other types and devices, and compiled, exported, traced or transformed programs use the library's. Outputs
    may be `torch.channels_last` in memory.

    Without gradients the planes of the kernel are kept for the next call, with a copy of the kernel: 148 MB in the
    paper's network. Each call compares kernel and copy, since a change through `.data` leaves no other trace. They
    are freed with the module and when it is trained, and copies and pickles of the module leave them out.
    """

    _prepared: _Prepared | None = None

    def forward(self, x: Float[Tensor, "*batch channels h w"]) -> Float[Tensor, "*batch out rows columns"]:
        """Convolve x."""
        weight, bias = self.weight, self.bias  # read once: a parametrization computes them at each access
        tensors = (x, weight) if bias is None else (x, weight, bias)
        train = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
        algorithm = self._algorithm(tensors, train)
        y: Tensor
        if algorithm is None:
            y = self._conv_forward(x, weight, bias)
            return y
        if train:
            self._prepared = None
            y = Convolution.apply(x, weight, bias, algorithm)  # type: ignore[no-untyped-call]
            return y
        if not isinstance(algorithm, Winograd):
            return algorithm.forward(x, weight, bias)[0]
        planes = self._planes(algorithm, weight)
        parts = [algorithm.forward(part, planes, bias)[0] for part in torch.split(x, SLICE)]
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def _algorithm(self, tensors: tuple[Tensor, ...], train: bool) -> Algorithm | None:
        """Return the fastest algorithm for this call; None for the library's."""
        x, weight = tensors[:2]
        plain = self.padding == (0, 0) and self.dilation == (1, 1) and self.groups == 1
        if not (plain and x.dim() == 4 and allowed(*tensors)):
            return None
        return choose(x.shape, weight.shape, (self.stride[0], self.stride[1]), train)

    def _planes(self, algorithm: Winograd, weight: Tensor) -> Tensor:
        kept = self._prepared
        if kept is None or kept.algorithm is not algorithm or not torch.equal(kept.weight, weight):
            copy = weight.detach().clone()  # the planes are this kernel's, even if it changes meanwhile
            kept = self._prepared = _Prepared(algorithm, copy, algorithm.prepare(copy))
        return kept.planes

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_prepared"}


class _Prepared(NamedTuple):
    """The planes of a kernel, and a copy of the kernel to recognise it by."""

    algorithm: Winograd
    weight: Tensor
    planes: Tensor


class Convolution(torch.autograd.Function):
    """An algorithm as a differentiable function."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, algorithm: Algorithm) -> Tensor:
        """Return the outputs, (batch, out, rows, columns)."""
        prepared = algorithm.prepare(weight)
        y, kept = algorithm.forward(x, prepared, bias)
        ctx.algorithm = algorithm
        ctx.save_for_backward(x, weight, bias, prepared, kept)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of input, kernel and bias, those that are wanted."""
        x, weight, bias, *kept = ctx.saved_tensors
        algorithm, wanted = ctx.algorithm, ctx.needs_input_grad[:3]
        if dispatch.backward_needs_operators(grad):
            plain = partial(F.conv2d, stride=algorithm.stride)
            return *dispatch.plain_gradients(plain, (x, weight, bias), grad, wanted), None
        grad_x, grad_weight = algorithm.backward(grad, x, weight, tuple(kept), wanted[:2])
        return grad_x, grad_weight, grad.sum((0, 2, 3)) if wanted[2] else None, None
