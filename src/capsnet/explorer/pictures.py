"""A visitor's picture file → pixels of the model's size."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from capsnet._support.errors import CapsnetError
from capsnet.data.images import read_image
from capsnet.explorer.schemas import Array, ImageResponse


def read_picture(content: bytes, image_shape: tuple[int, int, int]) -> ImageResponse:
    """Read a picture as training images from folders are read. Ink on paper becomes light on dark.

    Raises:
        CapsnetError: no picture that can be read.
    """
    with tempfile.TemporaryDirectory(prefix="capsnet-") as folder:
        path = Path(folder) / "picture"
        path.write_bytes(content)
        try:
            pixels = read_image(path, image_shape).float() / 255
        except CapsnetError as error:  # the visitor knows nothing of our folder
            raise CapsnetError(str(error).replace(str(path), "the picture")) from error
    edge = torch.cat([pixels[:, 0], pixels[:, -1], pixels[:, :, 0], pixels[:, :, -1]], dim=1)
    return ImageResponse(image=Array.of(1 - pixels if edge.mean() > 0.5 else pixels))
