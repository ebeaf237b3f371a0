"""Convolutions that are faster than PyTorch's on a CPU: most of the network's arithmetic is here.

fast_conv2d.py  `FastConv2d`, an `nn.Conv2d` that picks its own algorithm
choice.py       which algorithm wins for which shapes, and when the library's must be used
winograd.py     the Winograd (Cook–Toom) algorithm for large kernels: 6 times fewer multiplications
im2col.py       a product of patches, for few input channels
activation.py   ReLU between the two, without fresh memory
buffers.py      the memory they reuse

May import `_support` only. Begin with `fast_conv2d.py`. The law is `F.conv2d`: outputs and gradients are compared
with it in float64.
"""

from capsnet.convolution.activation import relu
from capsnet.convolution.fast_conv2d import FastConv2d

__all__ = ["FastConv2d", "relu"]
