"""Read an image file as pixels of the network's shape."""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from capsnet._support.pictures import Encoded, ImageInfo, check, read_pixels

__all__ = ["Encoded", "ImageInfo", "check", "read_image"]


def read_image(
    path: Path | Encoded, image_shape: tuple[int, int, int]
) -> UInt8[Tensor, "channels height width"]:
    """Read an image and convert it to `image_shape` = (1 or 3, height, width).

    See `capsnet._support.pictures.read_pixels` for the steps.

    Raises:
        CapsnetError: the file is not an image that can be read, or `image_shape` has neither 1 nor 3 channels.
    """
    return torch.from_numpy(read_pixels(path, image_shape))
