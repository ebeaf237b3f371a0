"""One image file → pixels of the shape the network wants, or one clear error."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from capsnet._support.errors import CapsnetError, shown

if TYPE_CHECKING:
    from PIL import Image

#: Only what people keep pictures in. Pillow's other readers are old, rare, or run programs (EPS).
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
#: A small file can claim a huge picture. 64 megapixels are 8,000 × 8,000.
MAX_PIXELS = 64_000_000
#: Pillow unpacks these in Python: two hundred bytes can ask for half a minute and half a gigabyte.
MAX_PACKED_BMP = 1_000_000
MIN_SIDE = 2
EXIF_ORIENTATION = 0x0112


@dataclass(frozen=True)
class ImageInfo:
    """What an image's header says: size in pixels as shown (after any EXIF rotation), and colour or grey."""

    width: int
    height: int
    colour: bool


def check(path: Path) -> ImageInfo:
    """Read an image's header only.

    Raises:
        CapsnetError: not an image in one of `FORMATS`, empty, 1 pixel wide or high, or over `MAX_PIXELS`.
    """
    with _opened(path) as image:
        width, height = image.size
        if image.getexif().get(EXIF_ORIENTATION) in (5, 6, 7, 8):
            width, height = height, width
        return ImageInfo(
            width, height, image.mode not in ("1", "L", "LA", "La", "I", "F") and image.mode[:2] != "I;"
        )


def read_image(path: Path, image_shape: tuple[int, int, int]) -> UInt8[Tensor, "channels height width"]:
    """Read an image and bring it to `image_shape` = (1 or 3, height, width).

    Turned upright by EXIF, first frame of several, transparency over white, 16 bits to 8, colour ↔ grey
    (ITU-R 601-2 luma), stretched to the size with antialiasing.

    Raises:
        CapsnetError: as `check`; or the file is truncated or damaged; or its pixels are floating point.
            Or `image_shape` wants another number of channels than 1 or 3.
    """
    from PIL import Image, ImageOps

    channels, height, width = image_shape
    if channels not in (1, 3):
        raise CapsnetError(
            f"{shown(path)}: the model takes images of {channels} channels, and image files have 1 or 3; use "
            "`capsnet evaluate`, or the model from Python"
        )
    with _opened(path) as opened:
        image = _to_8_bits(ImageOps.exif_transpose(opened), path)
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        image = image.convert("L" if channels == 1 else "RGB")
        if image.size != (width, height):
            image = image.resize((width, height), Image.Resampling.BILINEAR)
        pixels = np.array(image).reshape(height, width, channels)
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def _to_8_bits(image: Image.Image, path: Path) -> Image.Image:
    from PIL import Image

    if image.mode == "F":
        raise CapsnetError(
            f"{shown(path)}: floating-point pixels have no agreed white; save it with 8 or 16 bits"
        )
    if image.mode == "I" or image.mode.startswith("I;"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise CapsnetError(
                f"{shown(path)}: 32-bit pixels have no agreed white; save it with 8 or 16 bits"
            )
        return Image.fromarray(((values + 128) // 257).astype(np.uint8))
    return image


def _is_packed_bmp(image: Image.Image) -> bool:
    return any(tile[0] == "bmp_rle" for tile in getattr(image, "tile", ()))


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The image, its header checked; whatever goes wrong, inside the block too, is a CapsnetError."""
    from PIL import Image, UnidentifiedImageError

    name = shown(path)
    try:
        about = path.stat()
        if not S_ISREG(about.st_mode):  # a pipe would be waited for
            raise CapsnetError(f"{name}: cannot be read, it is no file; take it out of the folder")
        if about.st_size == 0:
            raise CapsnetError(f"{name}: is empty (0 bytes); delete or replace it")
        with warnings.catch_warnings():
            # Pillow only warns of large images and odd metadata; we refuse sizes below, at our own limit.
            warnings.simplefilter("ignore")
            with Image.open(path, formats=FORMATS) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    raise CapsnetError(
                        f"{name}: {width}×{height}, over {MAX_PIXELS // 10**6} million pixels; scale it down"
                    )
                if min(width, height) < MIN_SIDE:
                    raise CapsnetError(
                        f"{name}: only {width}×{height} pixels, nothing can be seen; delete it"
                    )
                if _is_packed_bmp(image) and width * height > MAX_PACKED_BMP:
                    raise CapsnetError(f"{name}: a compressed BMP of {width}×{height}; save it as PNG")
                yield image
    except CapsnetError:  # a ValueError itself
        raise
    except Image.DecompressionBombError as error:
        raise CapsnetError(
            f"{name}: more than {MAX_PIXELS // 10**6} million pixels; scale it down"
        ) from error
    except UnidentifiedImageError as error:
        raise CapsnetError(
            f"{name}: not an image ({', '.join(FORMATS)} are read); convert it, or take it out of the folder"
        ) from error
    except FileNotFoundError as error:
        raise CapsnetError(f"{name}: there is no such file; check the path") from error
    except (
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
        IndexError,
        TypeError,
    ) as error:  # what Pillow's readers raise
        reason = shown(str(error).splitlines()[0] if str(error) else type(error).__name__)
        raise CapsnetError(
            f"{name}: cannot be read, it is truncated or damaged ({reason}); replace it"
        ) from error
