"""Convert a visitor's picture file to pixels of the model's size."""

from __future__ import annotations

import tempfile
from pathlib import Path

from capsnet._support.errors import CapsnetError
from capsnet.data.images import read_image
from capsnet.explorer.programs.picture import light_on_dark
from capsnet.explorer.schemas import Array, ImageResponse


def read_picture(content: bytes, image_shape: tuple[int, int, int], inverts: bool = True) -> ImageResponse:
    """Read a picture like a training image. If `inverts`, dark ink on light paper becomes light on dark.

    Raises:
        CapsnetError: the content is not a readable picture.
    """
    with tempfile.TemporaryDirectory(prefix="capsnet-") as folder:
        path = Path(folder) / "picture"
        path.write_bytes(content)
        try:
            pixels = read_image(path, image_shape).float() / 255
        except CapsnetError as error:  # hide the temporary folder from the visitor
            raise CapsnetError(str(error).replace(str(path), "the picture")) from error
    return ImageResponse(image=Array.of(light_on_dark(pixels) if inverts else pixels))
