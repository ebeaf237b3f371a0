"""The network's beginning, images → feature maps of the primary capsules: most of the network's arithmetic.

`features` and `conv2d` equal the library's convolutions (reference.py) to float32 rounding, and pick the fast form
(points.py says why it needs a fifth of the multiplications) where it wins: float32 on a CPU, a large kernel, enough
images and channels. Elsewhere, and in compiled, exported or traced programs, they are the library's.

The same batch gives the same bits with the same number of threads, whatever was computed before. An image alone, or
among few, may take another path than in a large batch: the two agree to 1e-6, relative to the norm.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from capsnet._support import dispatch as switch
from capsnet.convolution import reference
from capsnet.convolution.cost import Choice, choose

__all__ = ["conv2d", "features"]


def features(
    images: Float[Tensor, "batch channels height width"],
    conv1_weight: Float[Tensor, "stem channels k1 k1"],
    conv1_bias: Float[Tensor, " stem"],
    conv2_weight: Float[Tensor, "out stem k2 k2"],
    conv2_bias: Float[Tensor, " out"],
    stride1: int = 1,
    stride2: int = 2,
    fast: bool | None = None,
) -> Float[Tensor, "batch out rows columns"]:
    """conv2(relu(conv1(images))), before any squash.

    fast: False takes the library's convolutions; None and True take the fast form where it is expected to win.
    Raises RuntimeError, as F.conv2d does, for shapes that do not fit.
    """
    parameters = (conv1_weight, conv1_bias, conv2_weight, conv2_bias)
    if (
        _allowed(fast, images, *parameters)
        and _fits(images, conv1_weight, conv1_bias, stride1)
        and conv2_weight.dim() == 4
        and conv2_weight.shape[:2] == (*conv2_bias.shape, conv1_weight.shape[0])
        and conv1_weight[0].numel() <= 2 * conv1_weight.shape[0]  # else Conv1 is no small product of patches
    ):
        kernel = conv1_weight.shape[2:]
        rows, columns = ((n - k) // stride1 + 1 for n, k in zip(images.shape[2:], kernel, strict=True))
        train = torch.is_grad_enabled() and any(t.requires_grad for t in (images, *parameters))
        choice = choose(len(images), rows, columns, conv2_weight.shape, stride2, train)
        if choice is not Choice.LIBRARY:
            from capsnet.convolution import autograd, inference

            strides = (stride1, stride1), (stride2, stride2)
            if train:
                y: Tensor = autograd.Stem.apply(images, *parameters, *strides)  # type: ignore[no-untyped-call]
                return y
            return inference.stem(images, *parameters, strides, choice)
    return reference.features(images, *parameters, stride1, stride2)


def conv2d(
    x: Float[Tensor, "batch channels height width"],
    weight: Float[Tensor, "out channels k k"],
    bias: Float[Tensor, " out"] | None = None,
    stride: int = 1,
    fast: bool | None = None,
) -> Float[Tensor, "batch out rows columns"]:
    """F.conv2d(x, weight, bias, stride), with the same choice as `features`."""
    tensors = (x, weight) if bias is None else (x, weight, bias)
    if _allowed(fast, *tensors) and _fits(x, weight, bias, stride):
        train = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
        choice = choose(len(x), x.shape[2], x.shape[3], weight.shape, stride, train)
        if choice is not Choice.LIBRARY:
            from capsnet.convolution import autograd, inference

            pair = stride, stride
            if train:
                y: Tensor = autograd.Conv2d.apply(x, weight, bias, pair)  # type: ignore[no-untyped-call]
                return y
            return inference.conv2d(x, weight, bias, pair, choice)
    return F.conv2d(x, weight, bias, stride)


def _allowed(fast: bool | None, *tensors: Tensor) -> bool:
    """float32 CPU tensors in eager mode, and nothing that switches the fast path off."""
    return (
        fast is not False
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
        and all(tensor.dtype == torch.float32 and tensor.device.type == "cpu" for tensor in tensors)
        and switch.may_stand_in(*tensors)
    )


def _fits(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> bool:
    """Shapes for which there is something to compute; the library explains the others."""
    return (
        x.dim() == weight.dim() == 4
        and x.shape[1] == weight.shape[1]
        and (bias is None or bias.shape == weight.shape[:1])
        and isinstance(stride, int)
        and stride > 0
        and all(size >= k for size, k in zip(x.shape[2:], weight.shape[2:], strict=True))
    )
