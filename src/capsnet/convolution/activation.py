"""ReLU for large activations on the CPU, in reused memory.

Fresh memory for the paper's network at batch 128 (52 MB) takes ten times as long as the ReLU itself. The ReLU is not
in place, because a forward hook on the layer before may keep its output.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from capsnet._support import dispatch
from capsnet.convolution.buffers import LARGE, take, take_channels_last
from capsnet.convolution.choice import allowed


def relu(x: Float[Tensor, "..."], scale: float = 1.0) -> Float[Tensor, "..."]:
    """Return scale · max(x, 0)."""
    if scale <= 0 or not allowed(x) or x.numel() < LARGE:  # in this order: an exported batch size is a symbol
        return F.relu(x) if scale == 1.0 else F.relu(x) * scale
    y: Tensor = _ReLU.apply(x, scale)  # type: ignore[no-untyped-call]
    return y


class _ReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float) -> Tensor:
        y = torch.clamp_min(x, 0, out=_like(x))
        ctx.scale = scale
        if scale != 1.0:
            y.mul_(scale)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (y,) = ctx.saved_tensors
        if dispatch.backward_needs_operators(grad):
            return torch.ops.aten.threshold_backward(grad, y, 0) * ctx.scale, None
        found = torch.ops.aten.threshold_backward.grad_input(grad, y, 0, grad_input=_like(y))
        return found if ctx.scale == 1.0 else found.mul_(ctx.scale), None


def _like(x: Tensor) -> Tensor:
    """Return an uninitialised tensor of x's shape and, where it is a usual one, memory format."""
    if x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last):
        return take_channels_last(*x.shape)
    return take(*x.shape)
