"""The network's beginning, images → feature maps of the primary capsules: most of the network's arithmetic."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from capsnet.stem import reference


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
    """conv2(relu(conv1(images))), before any squash."""
    return reference.features(
        images, conv1_weight, conv1_bias, conv2_weight, conv2_bias, stride1, stride2
    )
