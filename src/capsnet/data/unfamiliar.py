"""Images that a network trained on digits has never seen: letters and noise.

A network should notice that these are no digits. Both sets are fixed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from capsnet.data.dataset import Examples
from capsnet.data.fixed_random import frozen_uniforms

#: Capital and small letters that do not look like a digit in some font.
LETTERS = "ACDEFHJKMNPQRTUVWXYacdefhkmnprtuvwxy"
#: Fonts that come with Matplotlib.
FONTS = tuple(
    f"{family}{style}.ttf"
    for family, styles in {
        "DejaVuSans": ("", "-Bold", "-Oblique", "-BoldOblique"),
        "DejaVuSansMono": ("", "-Bold", "-Oblique", "-BoldOblique"),
        "DejaVuSerif": ("", "-Bold", "-Italic", "-BoldItalic"),
    }.items()
    for style in styles
)
#: Degrees by which each letter is rotated.
ANGLES = (-12, -4, 4, 12)
SIDE, BOX = 28, 20
#: The table of random numbers for the noise; see `frozen_uniforms`.
NOISE_STREAM = 6


def letters() -> Examples:
    """Draw every letter in every font at every angle, as MNIST's digits are placed.

    The longer side fills 20 pixels, and the centre of mass is in the middle of the 28×28 image. Pixels depend slightly
    on the versions of Matplotlib (fonts) and Pillow (drawing).

    Returns:
        Examples whose labels are indices in `LETTERS`.
    """
    from matplotlib import get_data_path
    from PIL import ImageFont

    folder = Path(get_data_path()) / "fonts" / "ttf"
    fonts = [ImageFont.truetype(folder / name, size=80) for name in FONTS]
    drawn = [
        (_placed(_drawn(letter, font, angle)), number)
        for number, letter in enumerate(LETTERS)
        for font in fonts
        for angle in ANGLES
    ]
    images = np.stack([image for image, _ in drawn])[:, None]
    return Examples(torch.from_numpy(images), torch.tensor([number for _, number in drawn]))


def noise(count: int) -> Examples:
    """Return images of independent uniform pixels; all have label 0."""
    uniforms = frozen_uniforms(NOISE_STREAM, count, SIDE * SIDE)
    pixels = (uniforms * 256).to(torch.uint8).reshape(count, 1, SIDE, SIDE)
    return Examples(pixels, torch.zeros(count, dtype=torch.int64))


def _drawn(letter: str, font: object, angle: float) -> NDArray[np.uint8]:
    """Return the letter, white on black, cut to its ink."""
    from PIL import Image, ImageDraw

    canvas = Image.new("L", (200, 200))
    ImageDraw.Draw(canvas).text((100, 100), letter, fill=255, font=font, anchor="mm")  # type: ignore[arg-type]
    turned = canvas.rotate(angle, Image.Resampling.BICUBIC)
    ink = turned.crop(turned.getbbox())
    scale = BOX / max(ink.size)
    width, height = (max(1, round(side * scale)) for side in ink.size)
    return np.asarray(ink.resize((width, height), Image.Resampling.LANCZOS))


def _placed(ink: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Put the ink on the canvas, with its centre of mass in the middle as far as it fits."""
    height, width = ink.shape
    weights = ink.astype(np.float64) / ink.sum(dtype=np.float64)
    centre = (weights.sum(1) @ np.arange(height), weights.sum(0) @ np.arange(width))
    top, left = (
        int(np.clip(round((SIDE - 1) / 2 - middle), 0, SIDE - side))
        for middle, side in zip(centre, ink.shape, strict=True)
    )
    image = np.zeros((SIDE, SIDE), np.uint8)
    image[top : top + height, left : left + width] = ink
    return image
