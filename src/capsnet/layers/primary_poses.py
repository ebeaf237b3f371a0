"""Primary capsules with a pose and an activation each, for matrix capsules and their kin."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from capsnet.functional import at_least_float32
from capsnet.routing import Capsules


class PrimaryPoses(nn.Module):
    """Make capsules of feature maps, with one convolution for poses and activations.

    Args:
        in_channels: channels of the maps.
        types: capsule types at each place.
        side: P; poses are P × P matrices.
        kernel, stride: geometry of the convolution.
        norm: batch norm of poses and activations, with one mean and one variance for each type, in place of a bias.

    Shape:
        (batch, in_channels, height, width) → poses (batch, types, rows, columns, P, P), activations in [0, 1]
        (batch, types, rows, columns)
    """

    def __init__(
        self, in_channels: int, types: int, side: int, *, kernel: int = 1, stride: int = 1, norm: bool = False
    ) -> None:
        super().__init__()
        self.types, self.side = types, side
        self.conv = nn.Conv2d(in_channels, types * (side**2 + 1), kernel, stride, bias=not norm)
        self.pose_norm = nn.BatchNorm1d(types) if norm else None
        self.activation_norm = nn.BatchNorm2d(types) if norm else None
        nn.init.xavier_uniform_(self.conv.weight)

    def forward(self, maps: Float[Tensor, "batch in_channels height width"]) -> Capsules:
        """Compute the primary capsules."""
        x = at_least_float32(self.conv(maps))
        numbers = self.types * self.side**2
        batch, _, rows, columns = x.shape
        poses = x[:, :numbers].reshape(batch, self.types, self.side**2, rows, columns)
        activations = x[:, numbers:]
        if self.pose_norm is not None and self.activation_norm is not None:
            poses = self.pose_norm(poses.flatten(2)).view_as(poses)
            activations = self.activation_norm(activations)
        poses = poses.permute(0, 1, 3, 4, 2).reshape(batch, self.types, rows, columns, self.side, self.side)
        return Capsules(poses, activations.sigmoid())
