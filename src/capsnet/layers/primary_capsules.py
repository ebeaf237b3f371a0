"""Convert images to primary capsules, the lowest level of capsules (section 4)."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from capsnet.convolution import FastConv2d, relu
from capsnet.functional import at_least_float32, squash


class PrimaryCapsules(nn.Module):
    """Conv1 with ReLU, then a convolution whose channels are grouped into capsules.

    At each place there are `types` capsules of dimension `dim`. Channel t·dim + d of the second convolution is
    component d of capsule type t. Capsules are ordered by type, then row, then column, as in the authors' code. All
    components of a capsule come from one place in the image. Without the transpose in `group`, a capsule would mix
    neighbouring pixels.

    Args:
        in_channels: channels of the image.
        stem_channels: channels of Conv1.
        types: capsule types at each place.
        dim: dimension of a capsule.
        stem_kernel, stem_stride: geometry of Conv1.
        kernel, stride: geometry of the capsules' convolution.
        scale: reading; factor of the second convolution's weights (1/32 in the authors' code).

    Shape:
        images (batch, in_channels, height, width) → (batch, types · rows · columns, dim), each of length < 1
    """

    def __init__(
        self,
        in_channels: int,
        stem_channels: int,
        types: int,
        dim: int,
        *,
        stem_kernel: int = 9,
        stem_stride: int = 1,
        kernel: int = 9,
        stride: int = 2,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.types, self.dim, self.scale = types, dim, scale
        self.conv1 = FastConv2d(in_channels, stem_channels, stem_kernel, stem_stride)
        self.conv2 = FastConv2d(stem_channels, types * dim, kernel, stride)

    def forward(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch in_caps dim"]:
        """Compute the primary capsules u of a batch of images."""
        return squash(self.group(self.conv2(relu(self.conv1(images), self.scale))))

    def group(self, maps: Float[Tensor, "batch channels rows columns"]) -> Float[Tensor, "batch in_caps dim"]:
        """Group the channels of feature maps into capsules.

        (batch, types·dim, rows, columns) → (batch, types·rows·columns, dim)
        """
        batch, _, rows, columns = maps.shape
        capsules = maps.reshape(batch, self.types, self.dim, rows * columns)
        return at_least_float32(capsules.transpose(2, 3).flatten(1, 2))
