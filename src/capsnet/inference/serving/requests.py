"""Turn the body of a request into images."""

from __future__ import annotations

import base64
import binascii
import time
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capsnet._support.errors import CapsnetError
from capsnet._support.files import parse_json
from capsnet._support.guard import Refused
from capsnet._support.pictures import Encoded, read_pixels

MAX_BODY = 16_000_000
MAX_IMAGES = 64
#: Less than for files: decoding 10 million pixels takes 40 MB and a tenth of a second.
MAX_PIXELS = 10_000_000

Images = NDArray[np.float32]


def accepts(path: str, kind: str) -> int:  # noqa: ARG001  one path takes bodies
    """Return the largest body in bytes.

    Raises:
        Refused: the content type is not supported.
    """
    if kind.startswith("image/") or kind in (
        "application/json",
        "application/octet-stream",
        "multipart/form-data",
    ):
        return MAX_BODY
    raise Refused(415, "send application/json, multipart/form-data, or a picture file with its content type")


def from_files(files: list[tuple[str, bytes]], shape: tuple[int, int, int], until: float = inf) -> Images:
    """Return images (n, channels, height, width) in [0, 1] from picture files.

    Args:
        files: name and content of each.
        shape: of the model's images.
        until: time (of `time.monotonic`) after which no more are decoded.

    Raises:
        CapsnetError: there are none or too many, or one is no picture.
        TimeoutError: the time is over.
    """
    check_count(len(files))
    return np.stack([_decoded(content, name, shape, until) for name, content in files])


def from_json(body: bytes, shape: tuple[int, int, int], until: float = inf) -> Images:
    """Return images from {"images": […]}: picture files in base64, or arrays of numbers from 0 to 1.

    Raises:
        CapsnetError: the body is not of this form, or one of the images is wrong.
        TimeoutError: the time is over; see `from_files`.
    """
    # Millions of empty lists in one body would take a gigabyte. An image is a list of channels, each a list of rows.
    if body.count(b"[") + body.count(b"{") > 2 + MAX_IMAGES * (1 + shape[0] * (1 + shape[1])):
        raise CapsnetError(f"the body has more lists than {MAX_IMAGES} images of {shape} have")
    try:
        found = parse_json(body.decode())
    except ValueError as error:  # also UnicodeDecodeError
        raise CapsnetError(f"the body is not JSON: {error}"[:300]) from error
    images = found.get("images") if isinstance(found, dict) else None
    if not isinstance(images, list):
        raise CapsnetError('send {"images": […]}, with a list of images')
    check_count(len(images))
    return np.stack([_from_value(value, f"images[{i}]", shape, until) for i, value in enumerate(images)])


def check_count(images: int) -> None:
    """Refuse a request without images, or with more than `MAX_IMAGES`.

    Raises:
        CapsnetError: the count is not 1 to `MAX_IMAGES`.
    """
    if not 1 <= images <= MAX_IMAGES:
        raise CapsnetError(f"send 1 to {MAX_IMAGES} images in a request; these are {images}")


def _from_value(value: Any, name: str, shape: tuple[int, int, int], until: float) -> Images:
    if isinstance(value, str):
        try:
            content = base64.b64decode(
                value.partition(",")[2] if value.startswith("data:") else value, validate=True
            )
        except (binascii.Error, ValueError) as error:
            raise CapsnetError(f"{name}: a text must be a picture file in base64") from error
        return _decoded(content, name, shape, until)
    try:
        pixels = np.array(value, np.float32)
    except (ValueError, TypeError, OverflowError) as error:
        raise CapsnetError(
            f"{name}: must be a picture in base64, or rows of numbers of equal length"
        ) from error
    if pixels.shape == shape[1:] and shape[0] == 1:
        pixels = pixels[None]
    if pixels.shape != shape:
        raise CapsnetError(f"{name}: an array of shape {pixels.shape}; the model takes {shape}")
    if not ((pixels >= 0) & (pixels <= 1)).all():  # also refuses NaN
        raise CapsnetError(f"{name}: the numbers must be from 0 to 1")
    return pixels


def _decoded(content: bytes, name: str, shape: tuple[int, int, int], until: float) -> Images:
    if time.monotonic() > until:
        raise TimeoutError
    pixels: Images = read_pixels(Encoded(content, name), shape, MAX_PIXELS).astype(np.float32)
    return np.divide(pixels, 255, dtype=np.float32)
