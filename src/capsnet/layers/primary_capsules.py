"""Image → primary capsules: the lowest level of the hierarchy, "inverse graphics" begins here (section 4)."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from capsnet.convolution import features
from capsnet.functional import at_least_float32, squash


class PrimaryCapsules(nn.Module):
    """Conv1 with ReLU, then a convolution whose channels are read as `types` capsules of `dim` numbers per place.

    Channel t·dim + d of the second convolution is number d of capsule type t; capsules are ordered by type
    first and then by row and column, as in the authors' code. A capsule's numbers all come from one place in
    the image: reading the channels without this transpose would make it out of neighbouring pixels.

    Both convolutions are one function (see capsnet.convolution) as long as calling them would make no difference.
    With hooks, pruning, parametrizations, other options or other modules in their place, they are called one after
    the other.

    Args:
        in_channels: channels of the image.
        stem_channels: channels of Conv1.
        types: capsule types at each place.
        dim: numbers in each capsule.
        stem_kernel, stem_stride: geometry of Conv1.
        kernel, stride: geometry of the capsules' convolution.
        scale: reading; the second convolution's weights are multiplied by it (1/32 in the authors' code).

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
        self.conv1 = nn.Conv2d(in_channels, stem_channels, stem_kernel, stem_stride)
        self.conv2 = nn.Conv2d(stem_channels, types * dim, kernel, stride)

    def forward(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch in_caps dim"]:
        """Primary capsules u of a batch of images."""
        first, second = self.conv1, self.conv2
        if not (self.scale > 0 and _is_as_built(first) and _is_as_built(second)):
            hidden = first(images).relu()
            return squash(self.group(second(hidden if self.scale == 1.0 else hidden * self.scale)))
        assert first.bias is not None
        assert second.bias is not None
        weight, bias = first.weight, first.bias
        if self.scale != 1.0:  # scale · relu(z) = relu(scale · z), and Conv1 has far fewer numbers than Conv2
            weight, bias = weight * self.scale, bias * self.scale
        maps = features(
            images,
            weight,
            bias,
            second.weight,
            second.bias,
            stride1=first.stride[0],
            stride2=second.stride[0],
        )
        return squash(self.group(maps))

    def group(self, maps: Float[Tensor, "batch channels rows columns"]) -> Float[Tensor, "batch in_caps dim"]:
        """Read feature maps as capsules: (batch, types·dim, rows, columns) → (batch, types·rows·columns, dim)."""
        batch, _, rows, columns = maps.shape
        capsules = maps.reshape(batch, self.types, self.dim, rows * columns)
        return at_least_float32(capsules.transpose(2, 3).flatten(1, 2))


def _is_as_built(layer: nn.Module) -> bool:
    """Whether calling the layer does no more than F.conv2d(x, weight, bias, stride).

    Not so with hooks, which pruning, spectral norm and whoever wants the layer's output register; nor where users
    put something else in its place, or other options. (A parametrized layer has a class of its own.)
    """
    return (
        type(layer) is nn.Conv2d
        and "forward" not in vars(layer)  # accelerate's hooks replace it
        and not _has_any_global_hook()  # type: ignore[no-untyped-call]
        and not layer._forward_hooks
        and not layer._forward_pre_hooks
        and not layer._backward_hooks
        and not layer._backward_pre_hooks
        and layer.bias is not None
        and layer.stride[0] == layer.stride[1]
        and layer.padding == (0, 0)
        and layer.dilation == (1, 1)
        and layer.groups == 1
    )
