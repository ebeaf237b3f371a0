"""The fast paths as differentiable functions: Conv1 as a product of patches, the large convolution by points.

Kept for the backward pass: the planes of inputs and weights, and one byte per hidden unit (did the ReLU let it
pass?). The hidden layer itself exists for a few images at a time only.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from torch.nn.grad import conv2d_input

from capsnet._support import dispatch
from capsnet.convolution import buffers, kernels, reference
from capsnet.convolution.spectral import Convolution, Planes, convolution
from capsnet.convolution.threads import Job, run

CHUNK = 4  # images whose hidden layer is alive at once, per thread
Pair = tuple[int, int]
Gradients = tuple[Tensor | None, ...]


def output_size(shape: torch.Size, kernel: torch.Size, stride: Pair) -> Pair:
    """Rows and columns that a convolution without padding makes of (…, height, width)."""
    return (shape[-2] - kernel[-2]) // stride[0] + 1, (shape[-1] - kernel[-1]) // stride[1] + 1


def _channels_last(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    batch, channels, rows, columns = shape
    return buffers.take(batch, rows, columns, channels, dtype=dtype).permute(0, 3, 1, 2)


def _patches(images: Tensor, kernel: torch.Size, stride: Pair) -> Float[Tensor, "places p"]:
    """One row per output place of Conv1: its patch, then a 1 that meets the bias."""
    rows, columns = output_size(images.shape, kernel, stride)
    patches = buffers.take(len(images) * rows * columns, kernel[1:].numel() + 1)
    kernels.gather_patches(images.numpy(), kernel[2], kernel[3], *stride, patches.numpy())
    return patches


def hidden_planes(
    conv: Convolution,
    images: Tensor,
    weight1: Tensor,
    bias1: Tensor,
    stride1: Pair,
    planes: Planes,
    mask: Tensor | None,
) -> Job:
    """Images → planes of relu(conv1(images)), a chunk at a time, and the ReLU's mask where it is wanted."""
    rows, columns = output_size(images.shape, weight1.shape, stride1)
    kernel = torch.cat([weight1.flatten(1), bias1[:, None]], 1).T
    images = images.detach().contiguous()

    def work(start: int, stop: int) -> None:
        for first in range(start, stop, CHUNK):
            last = min(first + CHUNK, stop)
            patches = _patches(images[first:last], weight1.shape, stride1)
            hidden = _channels_last(last - first, planes.channels, rows, columns)
            torch.mm(patches, kernel, out=hidden.permute(0, 2, 3, 1).view(len(patches), -1))
            part = _channels_last(*hidden.shape, dtype=torch.uint8) if mask is None else mask[first:last]
            job = conv.analyse_input(hidden, planes, first, part)
            job.work(0, job.total)

    return Job(work, len(images), CHUNK)


def _conv1_gradient(images: Tensor, weight1: Tensor, stride1: Pair, grad: Tensor, partial: Tensor) -> Job:
    """Gradient of the hidden layer → of Conv1's kernel and bias, one partial sum per chunk of images."""
    images = images.detach().contiguous()

    def work(start: int, stop: int) -> None:
        for first in range(start, stop, CHUNK):
            last = min(first + CHUNK, stop)
            patches = _patches(images[first:last], weight1.shape, stride1)
            part = grad[first:last].permute(0, 2, 3, 1).reshape(len(patches), -1)
            torch.mm(patches.T, part, out=partial[first // CHUNK])

    return Job(work, len(images), CHUNK)


class Stem(torch.autograd.Function):
    """conv2(relu(conv1(images))) for float32 CPU tensors; strides are pairs."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, *rest: Any) -> Tensor:
        """Outputs (batch, out, rows, columns) of images, weight1, bias1, weight2, bias2, stride1, stride2."""
        weight1, bias1, weight2, bias2, stride1, stride2 = rest
        rows, columns = output_size(images.shape, weight1.shape, stride1)
        conv = convolution(rows, columns, tuple(weight2.shape[2:]), stride2)
        weights = Planes.empty(conv.plan, *weight2.shape[:2])
        planes = Planes.empty(conv.plan, len(images), weight2.shape[1])
        mask = _channels_last(len(images), len(weight1), rows, columns, dtype=torch.uint8)
        run(
            conv.analyse_weight(weight2, weights),
            hidden_planes(conv, images, weight1, bias1, stride1, planes, mask),
        )
        ctx.conv, ctx.strides = conv, (stride1, stride2)
        ctx.save_for_backward(images, weight1, bias1, weight2, bias2, planes.storage, weights.storage, mask)
        return conv.forward(planes, weights, bias2)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Gradients:
        """Gradients of images and parameters, those that are wanted."""
        *inputs, planes, weights, mask = ctx.saved_tensors
        images, weight1, _, weight2, _ = inputs
        stride1, _ = ctx.strides
        wanted = ctx.needs_input_grad
        if dispatch.backward_needs_operators(grad):
            plain = partial(reference.features, stride1=ctx.strides[0], stride2=ctx.strides[1])
            return *dispatch.plain_gradients(plain, inputs, grad, wanted[:5]), None, None
        conv: Convolution = ctx.conv
        hidden = _channels_last(*mask.shape) if any(wanted[:3]) else None
        grad2 = torch.empty_like(weight2, memory_format=torch.contiguous_format) if wanted[3] else None
        x_planes = Planes(planes, conv.plan, len(images), weight2.shape[1])
        w_planes = Planes(weights, conv.plan, *weight2.shape[:2])
        conv.backward(grad, x_planes, w_planes, hidden, grad2, mask)
        grad_images = grad_weight1 = grad_bias1 = None
        if hidden is not None and any(wanted[1:3]):
            sums = images.new_empty(-(-len(images) // CHUNK), weight1[0].numel() + 1, len(weight1))
            run(_conv1_gradient(images, weight1, stride1, hidden, sums))
            kernel = sums.sum(0)
            grad_weight1, grad_bias1 = kernel[:-1].T.reshape(weight1.shape), kernel[-1].clone()
        if hidden is not None and wanted[0]:
            grad_images = conv2d_input(images.shape, weight1, hidden, stride1)  # type: ignore[no-untyped-call]
        grad_bias2 = grad.sum((0, 2, 3)) if wanted[4] else None
        return grad_images, grad_weight1, grad_bias1, grad2, grad_bias2, None, None


class Conv2d(torch.autograd.Function):
    """A convolution without padding for float32 CPU tensors; the stride is a pair."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair) -> Tensor:
        """Outputs (batch, out, rows, columns)."""
        conv = convolution(x.shape[2], x.shape[3], (weight.shape[2], weight.shape[3]), stride)
        weights = Planes.empty(conv.plan, weight.shape[0], weight.shape[1])
        planes = Planes.empty(conv.plan, len(x), weight.shape[1])
        dense = x.contiguous(memory_format=torch.channels_last)
        run(conv.analyse_weight(weight, weights), conv.analyse_input(dense, planes))
        ctx.conv, ctx.stride = conv, stride
        ctx.save_for_backward(x, weight, bias, planes.storage, weights.storage)
        return conv.forward(planes, weights, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Gradients:
        """Gradients of input, kernel and bias, those that are wanted."""
        x, weight, bias, planes, weights = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        if dispatch.backward_needs_operators(grad):
            plain = partial(F.conv2d, stride=ctx.stride)
            return *dispatch.plain_gradients(plain, (x, weight, bias), grad, wanted[:3]), None
        conv: Convolution = ctx.conv
        grad_x = torch.empty_like(x, memory_format=torch.channels_last) if wanted[0] else None
        grad_weight = torch.empty_like(weight, memory_format=torch.contiguous_format) if wanted[1] else None
        x_planes = Planes(planes, conv.plan, len(x), weight.shape[1])
        w_planes = Planes(weights, conv.plan, *weight.shape[:2])
        conv.backward(grad, x_planes, w_planes, grad_x, grad_weight)
        return grad_x, grad_weight, grad.sum((0, 2, 3)) if wanted[2] else None, None
