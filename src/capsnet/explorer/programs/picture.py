"""A picture file's pixels → the network's input, as `capsnet.data.images.read_image` does it."""

from __future__ import annotations

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from capsnet.explorer.programs.program import Outputs, Program
from capsnet.explorer.schemas import ImageResponse

#: ITU-R 601-2 luma, in Pillow's fixed point: the sum of the products, plus half, divided by 2¹⁶.
LUMA = (19595.0, 38470.0, 7471.0)


class Picture(Program):
    """Put transparent pixels on white, convert to grey if the model takes grey, resize, invert ink on paper."""

    answer = ImageResponse

    def __init__(self, image_shape: tuple[int, int, int], inverts: bool = True) -> None:
        super().__init__()
        self.image_shape, self.inverts = image_shape, inverts

    def forward(self, rgba: UInt8[Tensor, "height width 4"]) -> Outputs:
        """Return the image in [0, 1], light on dark if the model's images are."""
        channels, height, width = self.image_shape
        values = rgba.float()
        cover = values[..., 3:] / 255
        colours = (values[..., :3] * cover + 255 * (1 - cover)).round()
        if channels == 1:
            colours = ((colours @ torch.tensor(LUMA) + 32768) / 65536).floor()[..., None]
        planes = colours.permute(2, 0, 1)
        planes = (planes @ resizing(planes.shape[2], width).mT + 0.5).floor()
        planes = (resizing(planes.shape[1], height) @ planes + 0.5).floor()
        image = planes.clamp(0, 255) / 255
        return {"image": light_on_dark(image) if self.inverts else image}


def resizing(size: int, wanted: int) -> Float[Tensor, "wanted size"]:
    """Return the matrix that resizes a row: bilinear with antialiasing, as Pillow's."""
    step = size / wanted
    reach = max(step, 1.0)
    centres = (torch.arange(wanted) + 0.5) * step
    distance = (torch.arange(size) + 0.5 - centres[:, None]).abs() / reach
    weights = (1 - distance).clamp(min=0)
    return weights / weights.sum(dim=1, keepdim=True)


def light_on_dark(image: Float[Tensor, "channels height width"]) -> Float[Tensor, "channels height width"]:
    """Invert dark ink on light paper: the edge tells."""
    edge = torch.cat([image[:, 0], image[:, -1], image[:, :, 0], image[:, :, -1]], dim=1)
    return torch.where(edge.mean() > 0.5, 1 - image, image)
