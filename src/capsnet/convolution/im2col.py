"""Convolution as one matrix product over patches (im2col): for few input channels, as in a network's first layer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.grad import conv2d_input

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
        patches = self._patches(x, weights)
        rows, columns = (
            (n - k) // s + 1 for n, k, s in zip(x.shape[2:], weights.shape[2:], self.stride, strict=True)
        )
        y = take_channels_last(len(x), len(weights), rows, columns)
        flat, kernel = y.permute(0, 2, 3, 1).view(len(patches), -1), weights.flatten(1).T
        if bias is None:
            torch.mm(patches, kernel, out=flat)
        else:
            torch.addmm(bias, patches, kernel, out=flat)
        return y, patches

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

    def _patches(self, x: Tensor, weight: Tensor) -> Float[Tensor, "places p"]:
        """Return one row per output place."""
        windows = x.unfold(2, weight.shape[2], self.stride[0]).unfold(3, weight.shape[3], self.stride[1])
        windows = windows.permute(0, 2, 3, 1, 4, 5)
        return take(*windows.shape).copy_(windows).view(-1, weight[0].numel())
