"""Compose the visitor's layers into the network's input."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from capsnet.data.masks import boxes
from capsnet.data.warping import affine_matrices, warp

Pixels = Float[Tensor, "layers numbers"]
#: rotation, shear, scale_x, scale_y, shift_x, shift_y: the fields of `schemas.Transform`, in their order.
Transforms = Float[Tensor, "layers 6"]
Images = Float[Tensor, "batch channels height width"]


def matrices_of(transforms: Transforms) -> Float[Tensor, "layers 2 3"]:
    """Return the affine maps of pixel coordinates about the centre."""
    return affine_matrices(
        rotation=transforms[:, 0],
        shear=transforms[:, 1],
        scale=transforms[:, 2:4],
        translation=transforms[:, 4:6],
    )


def placed(pixels: Pixels, transforms: Transforms, image_shape: tuple[int, int, int]) -> Images:
    """Transform each layer; the identity keeps the pixels exactly."""
    return warp(pixels.unflatten(1, image_shape), matrices_of(transforms)).clamp(0, 1)  # type: ignore[no-untyped-call]


def compose(layers: Images) -> Float[Tensor, "1 channels height width"]:
    """Add the layers and clip at 1, as in MultiMNIST."""
    return layers.sum(dim=0, keepdim=True).clamp(max=1)


def outlines(
    pixels: Pixels, transforms: Transforms, image_shape: tuple[int, int, int]
) -> Float[Tensor, "layers 4 2"]:
    """Return the corners of each layer's frame, in pixels from the top left.

    The frame is the bounding box of the ink plus one pixel, after the transform. Without ink it is the whole
    image.
    """
    _, height, width = image_shape
    images = pixels.unflatten(1, image_shape)  # type: ignore[no-untyped-call]
    middle = torch.tensor([width / 2, height / 2])
    box = boxes(images[:, None])[:, 0].float()  # top, left, bottom, right
    whole = torch.tensor([0.0, 0.0, height, width])
    margin = torch.tensor([-1.0, -1.0, 1.0, 1.0])
    top, left, bottom, right = torch.where(box.sum(dim=1, keepdim=True) > 0, box + margin, whole).unbind(1)
    across = torch.stack((left, right, right, left), dim=1)
    down = torch.stack((top, top, bottom, bottom), dim=1)
    corners = torch.stack((across, down), dim=2) - middle
    matrices = matrices_of(transforms)
    return corners @ matrices[:, :, :2].mT + matrices[:, None, :, 2] + middle
