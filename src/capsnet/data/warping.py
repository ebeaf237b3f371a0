"""Affine maps of images: matrices and bilinear sampling."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from capsnet.functional import at_least_float32


def affine_matrices(
    *,
    rotation: Float[Tensor, " batch"],
    shear: Float[Tensor, " batch"],
    scale: Float[Tensor, "batch 2"],
    translation: Float[Tensor, "batch 2"],
) -> Float[Tensor, "batch 2 3"]:
    """Return the maps p ↦ RKS·p + t: scale, shear, rotate, then translate.

    Coordinates are in pixels, from the image's centre.

    Args:
        rotation: degrees, counter-clockwise in the displayed image.
        shear: x moves by shear · y.
        scale: factors (across, down).
        translation: pixels (across, down).

    Returns:
        Matrices [A | t] with (x, y) = (across, down) coordinates.
    """
    angle = torch.deg2rad(rotation)
    cos, sin = angle.cos(), angle.sin()
    # R = (cos, sin; −sin, cos): y points down, so the signs of the sines are swapped.
    # The product RK is written out, since autocast would compute a matrix product in 16 bits.
    turned = torch.stack((cos, cos * shear + sin, -sin, cos - sin * shear), dim=1).view(-1, 2, 2)
    return torch.cat((turned * scale[:, None, :], translation[:, :, None]), dim=2)


def inverse(matrices: Float[Tensor, "batch 2 3"]) -> Float[Tensor, "batch 2 3"]:
    """Return the inverse maps p ↦ A⁻¹(p − t).

    In closed form, since `torch.linalg.inv` would force a device sync.
    """
    a, b, c, d = matrices[:, :, :2].flatten(1).unbind(1)
    back = torch.stack((d, -b, -c, a), dim=1).view(-1, 2, 2) / (a * d - b * c)[:, None, None]
    return torch.cat((back, -(back * matrices[:, None, :, 2]).sum(dim=2, keepdim=True)), dim=2)


def warp(
    images: Float[Tensor, "batch channels height width"],
    matrices: Float[Tensor, "batch 2 3"],
    size: tuple[int, int] | None = None,
) -> Float[Tensor, "batch channels out_height out_width"]:
    """Transform each image by its matrix (`affine_matrices`), bilinearly.

    The result is a canvas of `size` (height, width), by default as large as the image. The centres coincide, and pixels
    from outside the image are 0. Images keep their floating type.
    """
    return sample(images, inverse(matrices), size or (images.shape[2], images.shape[3]))


def sample(
    images: Float[Tensor, "batch channels height width"],
    back: Float[Tensor, "batch 2 3"],
    size: tuple[int, int],
) -> Float[Tensor, "batch channels out_height out_width"]:
    """Sample bilinearly at `back` · (x, y, 1) for every pixel (x, y) of the canvas.

    Coordinates are in pixels from the centre, not torch's normalised coordinates. If the entries of `back` are
    multiples of 2⁻¹⁶ and the pixels are integers, all results are exact in float64 and do not depend on the order of
    sums. The fixed test sets need this.
    """
    height, width = images.shape[2:]
    back = at_least_float32(back)  # 16-bit floats are too coarse for pixel coordinates
    options = {"dtype": back.dtype, "device": back.device}
    y = torch.arange(size[0], **options) - (size[0] - 1) / 2  # type: ignore[call-overload]
    x = torch.arange(size[1], **options) - (size[1] - 1) / 2  # type: ignore[call-overload]
    across, down = (
        row[:, 0, None, None] * x + row[:, 1, None, None] * y[:, None] + row[:, 2, None, None]
        for row in back.unbind(1)
    )
    across, down = across + (width - 1) / 2, down + (height - 1) / 2
    left, top = across.floor(), down.floor()
    right_share, lower_share = (across - left)[:, None], (down - top)[:, None]

    padded = pad(images, (1, 1, 1, 1)).flatten(2)  # a border of black pixels represents the outside

    def pixels(row: Float[Tensor, "batch y x"], column: Float[Tensor, "batch y x"]) -> Tensor:
        index = (row.clamp(-1, height) + 1) * (width + 2) + column.clamp(-1, width) + 1
        index = index.long().flatten(1)[:, None].expand(-1, images.shape[1], -1)
        return padded.gather(2, index).view(*images.shape[:2], *size)

    upper = pixels(top, left) * (1 - right_share) + pixels(top, left + 1) * right_share
    lower = pixels(top + 1, left) * (1 - right_share) + pixels(top + 1, left + 1) * right_share
    moved: Tensor = upper * (1 - lower_share) + lower * lower_share
    return moved.to(images.dtype)
