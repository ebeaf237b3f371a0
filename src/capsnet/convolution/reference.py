"""The plain twin of the fast stem: two library convolutions."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def features(
    images: Float[Tensor, "batch channels height width"],
    conv1_weight: Float[Tensor, "stem channels k1 k1"],
    conv1_bias: Float[Tensor, " stem"],
    conv2_weight: Float[Tensor, "out stem k2 k2"],
    conv2_bias: Float[Tensor, " out"],
    stride1: int | tuple[int, int] = 1,
    stride2: int | tuple[int, int] = 2,
) -> Float[Tensor, "batch out rows columns"]:
    """conv2(relu(conv1(images))), on any device and in any dtype."""
    hidden = F.relu(F.conv2d(images, conv1_weight, conv1_bias, stride1))
    return F.conv2d(hidden, conv2_weight, conv2_bias, stride2)
