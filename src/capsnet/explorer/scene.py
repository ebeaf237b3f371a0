"""Compose the visitor's layers into the network's input."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from capsnet._support.errors import CapsnetError
from capsnet.data.masks import boxes
from capsnet.data.warping import affine_matrices, warp
from capsnet.explorer.schemas import Layer, Transform

Images = Float[Tensor, "batch channels height width"]


def matrices_of(transforms: list[Transform]) -> Float[Tensor, "batch 2 3"]:
    """Return the affine maps of pixel coordinates about the centre."""
    values = torch.tensor(
        [[t.rotation, t.shear, t.scale_x, t.scale_y, t.shift_x, t.shift_y] for t in transforms]
    )
    return affine_matrices(
        rotation=values[:, 0], shear=values[:, 1], scale=values[:, 2:4], translation=values[:, 4:6]
    )


def pixels_of(layers: list[Layer], image_shape: tuple[int, int, int]) -> Images:
    """Return each layer's pixels before its transform.

    Raises:
        CapsnetError: a layer does not have the model's size.
    """
    channels, height, width = image_shape
    for number, layer in enumerate(layers, 1):
        if len(layer.pixels) != channels * height * width:
            raise CapsnetError(
                f"layer {number} has {len(layer.pixels)} pixels; this model takes "
                f"{channels}·{height}·{width} = {channels * height * width}"
            )
    return torch.tensor([layer.pixels for layer in layers]).view(-1, *image_shape)


def placed(layers: list[Layer], image_shape: tuple[int, int, int]) -> Images:
    """Transform each layer; the identity keeps the pixels exactly."""
    images = pixels_of(layers, image_shape)
    moved = [number for number, layer in enumerate(layers) if layer.transform != Transform()]
    if moved:
        images[moved] = warp(images[moved], matrices_of([layers[number].transform for number in moved]))
    return images.clamp(0, 1)


def compose(layers: Images) -> Float[Tensor, "1 channels height width"]:
    """Add the layers and clip at 1, as in MultiMNIST."""
    return layers.sum(dim=0, keepdim=True).clamp(max=1)


def outlines(layers: list[Layer], image_shape: tuple[int, int, int]) -> Float[Tensor, "batch 4 2"]:
    """Return the corners of each layer's frame, in pixels from the top left.

    The frame is the bounding box of the ink plus one pixel, after the transform. Without ink it is the whole
    image.
    """
    _, height, width = image_shape
    middle = torch.tensor([width / 2, height / 2])
    box = boxes(pixels_of(layers, image_shape)[:, None]).squeeze(1).float()  # top, left, bottom, right
    whole = torch.tensor([0.0, 0.0, height, width])
    margin = torch.tensor([-1.0, -1.0, 1.0, 1.0])
    top, left, bottom, right = torch.where(box.sum(dim=1, keepdim=True) > 0, box + margin, whole).unbind(1)
    across = torch.stack((left, right, right, left), dim=1)
    down = torch.stack((top, top, bottom, bottom), dim=1)
    corners = torch.stack((across, down), dim=2) - middle
    matrices = matrices_of([layer.transform for layer in layers])
    return corners @ matrices[:, :, :2].mT + matrices[:, None, :, 2] + middle
