"""Decode class capsules to images (section 4.1)."""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from capsnet.functional import at_least_float32


def mask(
    capsules: Float[Tensor, "batch num_classes dim"], labels: Int[Tensor, " batch"]
) -> Float[Tensor, "batch num_classes dim"]:
    """Set all capsules to zero, except the one of the label.

    The shape does not change: the decoder receives num_classes · dim numbers (160 for digits), so that it knows which
    class it draws. An out-of-range label masks everything to zero. Checking the range here would force a device sync,
    so `CapsuleClassifier.decode` does it.
    """
    chosen = torch.arange(capsules.shape[1], device=capsules.device) == labels[:, None]
    return capsules * chosen[:, :, None]


class Decoder(nn.Module):
    """Fully connected layers from masked capsules to pixels in (0, 1).

    Args:
        num_classes, dim: the class capsules.
        hidden: widths of the hidden layers, (512, 1024) in the paper.
        image_shape: (channels, height, width).
    """

    def __init__(
        self, num_classes: int, dim: int, hidden: tuple[int, ...], image_shape: tuple[int, int, int]
    ) -> None:
        super().__init__()
        self.image_shape = image_shape
        channels, height, width = image_shape
        widths = (num_classes * dim, *hidden)
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise(widths):
            layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], channels * height * width))

    def forward(
        self, capsules: Float[Tensor, "batch num_classes dim"], labels: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Reconstruct an image from one capsule of each example."""
        pixels = at_least_float32(self.layers(mask(capsules, labels).flatten(1))).sigmoid()
        images: Tensor = pixels.unflatten(1, self.image_shape)  # type: ignore[no-untyped-call]
        return images
