"""Without gradients: the weights' share of the work is done once, for as long as they stay the same."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from capsnet.convolution import buffers, cost
from capsnet.convolution.autograd import Pair, hidden_planes, output_size
from capsnet.convolution.cache import prepared
from capsnet.convolution.spectral import Convolution, Planes, convolution
from capsnet.convolution.threads import Job, run

SLICE = 128  # images whose planes are alive at once


def stem(
    images: Tensor,
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
    bias2: Tensor,
    strides: tuple[Pair, Pair],
    choice: cost.Choice,
) -> Float[Tensor, "batch out rows columns"]:
    """conv2(relu(conv1(images)))."""
    images = images.detach()
    if choice is cost.Choice.PATCHES:
        hidden = F.relu(F.conv2d(images, weight1, bias1, strides[0]))
        return _by_patches(hidden, weight2, bias2, strides[1])
    rows, columns = output_size(images.shape, weight1.shape, strides[0])
    conv = convolution(rows, columns, (weight2.shape[2], weight2.shape[3]), strides[1])

    def fill(part: Tensor, planes: Planes) -> Job:
        return hidden_planes(conv, part, weight1, bias1, strides[0], planes, None)

    return _by_points(conv, images, prepared(weight2).planes(conv), bias2, fill)


def conv2d(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, choice: cost.Choice
) -> Float[Tensor, "batch out rows columns"]:
    """The convolution alone."""
    x = x.detach()
    if choice is cost.Choice.PATCHES:
        return _by_patches(x, weight, bias, stride)
    conv = convolution(x.shape[2], x.shape[3], (weight.shape[2], weight.shape[3]), stride)

    def fill(part: Tensor, planes: Planes) -> Job:
        return conv.analyse_input(part.contiguous(memory_format=torch.channels_last), planes)

    return _by_points(conv, x, prepared(weight).planes(conv), bias, fill)


def _by_points(
    conv: Convolution, x: Tensor, weights: Planes, bias: Tensor | None, fill: Callable[[Tensor, Planes], Job]
) -> Tensor:
    """fill(part, planes) computes the planes of some images' input to the convolution."""
    parts = []
    for part in x.tensor_split(tuple(range(SLICE, len(x), SLICE))):
        planes = Planes.empty(conv.plan, len(part), weights.channels)
        run(fill(part, planes))
        parts.append(conv.forward(planes, weights, bias))
    return torch.cat(parts) if len(parts) > 1 else parts[0]


def _by_patches(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair) -> Tensor:
    """One or two images: for so few the library spends as long on bringing 21 MB of weights in order.

    One row of patches per output place, times the weights in the order in which they lie. (Keeping them in the best
    order for the next call does not pay: to know that they are still the same, they have to be read.)
    """
    rows, columns = output_size(x.shape, weight.shape[2:], stride)
    windows = x.unfold(2, weight.shape[2], stride[0]).unfold(3, weight.shape[3], stride[1])
    patches = buffers.take(len(x) * rows * columns, weight[0].numel())
    patches.view(len(x), rows, columns, *weight.shape[1:]).copy_(windows.permute(0, 2, 3, 1, 4, 5))
    matrix, shift = weight.detach().flatten(1), None if bias is None else bias.detach()
    # PyTorch's own F.linear may take another library, which is slower on some processors.
    y: Tensor = torch.ops.mkldnn._linear_pointwise(patches, matrix, shift, "none", [], "")
    return y.view(len(x), rows, columns, -1).permute(0, 3, 1, 2).contiguous()
