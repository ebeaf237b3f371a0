"""A backbone of residual blocks (He, Zhang, Ren, Sun 2016), half as high and wide as the image."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class BasicBlock(nn.Module):
    """Two 3×3 convolutions with batch norm, added to the input or to a 1×1 convolution of it."""

    def __init__(self, fan_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(fan_in, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Sequential()
        if stride != 1 or fan_in != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(fan_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Float[Tensor, "batch fan_in h w"]) -> Float[Tensor, "batch channels rows columns"]:
        """Return the maps, of size / stride."""
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.shortcut(x))


def residual_blocks(in_channels: int, channels: int, width: int = 64) -> nn.Sequential:
    """Return a convolution, 3 blocks of `width` channels, and 4 of `channels` channels and stride 2."""
    first = [BasicBlock(width, width, 1) for _ in range(3)]
    second = [BasicBlock(width, channels, 2), *(BasicBlock(channels, channels, 1) for _ in range(3))]
    return nn.Sequential(
        nn.Conv2d(in_channels, width, 3, 1, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Sequential(*first),
        nn.Sequential(*second),
    )
