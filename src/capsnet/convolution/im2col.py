"""Convolution as one matrix product over patches (im2col): for few input channels, as in a network's first layer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.grad import conv2d_input

from capsnet._support.threads import for_each
from capsnet.convolution.buffers import take, take_channels_last


@dataclass(frozen=True)
class Im2col:
    """The algorithm for one stride. Outputs are `torch.channels_last` in memory, as the product leaves them."""

    stride: tuple[int, int]

    def prepare(self, weight: Float[Tensor, "out channels k1 k2"]) -> Float[Tensor, "out channels k1 k2"]:
        """Return the kernel itself."""
        return weight

    def forward(
        self,
        x: Float[Tensor, "batch channels h w"],
        weights: Float[Tensor, "out channels k1 k2"],
        bias: Float[Tensor, " out"] | None,
    ) -> tuple[Float[Tensor, "batch out rows columns"], Float[Tensor, "places p"]]:
        """Return the outputs, and the patches, which the backward pass needs."""
        windows = x.unfold(2, weights.shape[2], self.stride[0]).unfold(3, weights.shape[3], self.stride[1])
        windows = windows.permute(0, 2, 3, 1, 4, 5)
        batch, rows, columns = windows.shape[:3]
        patches, y = take(*windows.shape), take_channels_last(batch, len(weights), rows, columns)
        flat, kernel = y.permute(0, 2, 3, 1), weights.flatten(1).T

        def work(image: int) -> None:
            patches[image] = windows[image]
            row = patches[image].view(rows * columns, -1)
            out = flat[image].view(rows * columns, -1)
            if bias is None:
                torch.mm(row, kernel, out=out)
            else:
                torch.addmm(bias, row, kernel, out=out)

        for_each(work, ((image,) for image in range(batch)))
        return y, patches.view(-1, len(kernel))

    def backward(
        self,
        grad: Float[Tensor, "batch out rows columns"],
        x: Float[Tensor, "batch channels h w"],
        weight: Float[Tensor, "out channels k1 k2"],
        kept: tuple[Tensor, Tensor],
        wanted: tuple[bool, bool],
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return the gradients of x and weight, those that are wanted. kept: the kernel and the patches."""
        grad_x = grad_weight = None
        if wanted[0]:
            grad_x = conv2d_input(x.shape, weight, grad, self.stride)  # type: ignore[no-untyped-call]
        if wanted[1]:
            flat = grad.permute(0, 2, 3, 1).reshape(len(kept[1]), -1)
            grad_weight = torch.mm(flat.T, kept[1]).view(weight.shape)
        return grad_x, grad_weight
