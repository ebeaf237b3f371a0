"""Read an image file as pixels of a given shape, or raise one clear error."""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from capsnet._support.errors import CapsnetError, shown

if TYPE_CHECKING:
    from PIL import Image

#: Common formats only. Pillow's other readers are old, rare, or run programs (EPS).
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
#: Upper limit, since a small file can decompress to a huge image. 64 megapixels are 8,000 × 8,000.
MAX_PIXELS = 64_000_000
#: Upper limit for compressed BMP, which Pillow decodes in Python: 200 bytes can cost half a minute and half a gigabyte.
MAX_PACKED_BMP = 1_000_000
MIN_SIDE = 2
EXIF_ORIENTATION = 0x0112
TIFF_WIDTH, TIFF_HEIGHT = 256, 257
#: Orientation → `PIL.Image.Transpose`.
TURNS = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}


@dataclass(frozen=True)
class ImageInfo:
    """Size in pixels after any EXIF rotation, and whether the image has colour."""

    width: int
    height: int
    colour: bool


@dataclass(frozen=True)
class Encoded:
    """An image file that is not a file here: its bytes, and a name for messages."""

    content: bytes
    name: str

    def __str__(self) -> str:
        return self.name


def check(path: Path | Encoded) -> ImageInfo:
    """Read an image's header. Pillow may decode a PNG to look for its orientation.

    Raises:
        CapsnetError: the file is not an image in one of `FORMATS`, is empty, is 1 pixel wide or high, or has more than
            `MAX_PIXELS`.
    """
    with _opened(path) as image:
        width, height = image.size
        if image.format == "TIFF":  # newer versions of Pillow have turned `size` already
            tags: Any = image
            width, height = tags.tag_v2[TIFF_WIDTH], tags.tag_v2[TIFF_HEIGHT]
        if image.getexif().get(EXIF_ORIENTATION) in (5, 6, 7, 8):
            width, height = height, width
        return ImageInfo(width, height, _has_colour(image))


def read_pixels(
    path: Path | Encoded, image_shape: tuple[int, int, int], max_pixels: int = MAX_PIXELS
) -> NDArray[np.uint8]:
    """Read an image and convert it to `image_shape` = (1 or 3, height, width).

    Steps: rotate as EXIF says; take the first frame; put transparent pixels on white; convert 16 bits to 8; convert
    colour to grey or grey to colour (ITU-R 601-2 luma); resize with antialiasing, without keeping the aspect ratio.

    Raises:
        CapsnetError: as `check`; the file is truncated or damaged; its pixels are floating point; or `image_shape` has
            neither 1 nor 3 channels.
    """
    from PIL import Image

    channels, height, width = image_shape
    if channels not in (1, 3):
        raise CapsnetError(
            f"{shown(str(path))}: the model takes images of {channels} channels, and image files have 1 or 3; use "
            "`capsnet evaluate`, or the model from Python"
        )
    with _opened(path, max_pixels) as opened:
        opened.load()  # Pillow turns a TIFF by itself, and then forgets its orientation
        # Not ImageOps.exif_transpose: it writes the EXIF block anew, which fails if another entry is damaged.
        turn = TURNS.get(opened.getexif().get(EXIF_ORIENTATION, 1))
        image = _to_8_bits(opened if turn is None else opened.transpose(Image.Transpose(turn)), path)
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        image = image.convert("L" if channels == 1 else "RGB")
        if image.size != (width, height):
            image = image.resize((width, height), Image.Resampling.BILINEAR)
        pixels = np.array(image).reshape(height, width, channels)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _has_colour(image: Image.Image) -> bool:
    if image.mode == "P":
        colours = image.getpalette("RGB") or []
        return not colours[0::3] == colours[1::3] == colours[2::3]
    return image.mode not in ("1", "L", "LA", "La", "I", "F") and image.mode[:2] != "I;"


def _to_8_bits(image: Image.Image, path: Path | Encoded) -> Image.Image:
    from PIL import Image

    if image.mode == "F":
        raise CapsnetError(
            f"{shown(str(path))}: the value of white is unknown for floating-point pixels; save it with 8 or 16 bits"
        )
    if image.mode == "I" or image.mode.startswith("I;"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise CapsnetError(
                f"{shown(str(path))}: the value of white is unknown for 32-bit pixels; save it with 8 or 16 bits"
            )
        return Image.fromarray(((values + 128) // 257).astype(np.uint8))
    return image


def _is_packed_bmp(image: Image.Image) -> bool:
    return any(tile[0] == "bmp_rle" for tile in getattr(image, "tile", ()))


@contextmanager
def _opened(path: Path | Encoded, max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """Open an image and check its header.

    Errors, inside the block too, become CapsnetError.
    """
    from PIL import Image, UnidentifiedImageError

    name = shown(str(path))
    try:
        if isinstance(path, Encoded):
            size = len(path.content)
        else:
            about = path.stat()
            if not S_ISREG(about.st_mode):  # reading a pipe would block
                raise CapsnetError(f"{name}: cannot be read, it is not a file; remove it from the folder")
            size = about.st_size
        if size == 0:
            raise CapsnetError(f"{name}: is empty (0 bytes); delete or replace it")
        with warnings.catch_warnings():
            # Pillow warns of large images and unusual metadata. Sizes are checked below, against our own limit.
            warnings.simplefilter("ignore")
            # An open file, not a path: Pillow maps a file that it opens into memory, and reads turned TIFFs wrongly.
            with (
                io.BytesIO(path.content) if isinstance(path, Encoded) else path.open("rb") as source,
                Image.open(source, formats=FORMATS) as image,
            ):
                width, height = image.size
                if width * height > max_pixels:
                    raise CapsnetError(
                        f"{name}: {width}×{height}, more than {max_pixels // 10**6} million pixels; scale it down"
                    )
                if min(width, height) < MIN_SIDE:
                    raise CapsnetError(
                        f"{name}: only {width}×{height} pixels, too small to show anything; delete it"
                    )
                if _is_packed_bmp(image) and width * height > MAX_PACKED_BMP:
                    raise CapsnetError(f"{name}: a compressed BMP of {width}×{height}; save it as PNG")
                yield image
    except CapsnetError:  # a ValueError itself
        raise
    except Image.DecompressionBombError as error:
        raise CapsnetError(
            f"{name}: more than {max_pixels // 10**6} million pixels; scale it down"
        ) from error
    except UnidentifiedImageError as error:
        raise CapsnetError(
            f"{name}: not an image ({', '.join(FORMATS)} are read); convert it, or remove it from the folder"
        ) from error
    except FileNotFoundError as error:
        raise CapsnetError(f"{name}: there is no such file; check the path") from error
    except (
        OSError,
        SyntaxError,
        struct.error,
        ValueError,
        EOFError,
        IndexError,
        TypeError,
    ) as error:  # what Pillow's readers raise
        reason = shown(str(error).splitlines()[0] if str(error) else type(error).__name__)
        raise CapsnetError(
            f"{name}: cannot be read, it is truncated or damaged ({reason}); replace it"
        ) from error
