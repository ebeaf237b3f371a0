"""Windows of convolutional capsules: K × K positions of a map, whose children vote for the parents at one position."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Windows:
    """All windows of a map. The children of a window are in the order (row, column, type), and so is W.

    Raises:
        ValueError: the window is larger than the map.
    """

    height: int
    width: int
    kernel: int
    stride: int = 1

    def __post_init__(self) -> None:
        if min(self.kernel, self.stride) < 1 or self.kernel > min(self.height, self.width):
            raise ValueError(
                f"windows of {self.kernel} × {self.kernel} with stride {self.stride} must be at least 1, and must "
                f"fit in the map of {self.height} × {self.width}"
            )

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of windows."""
        high, wide = ((side - self.kernel) // self.stride + 1 for side in (self.height, self.width))
        return high, wide

    def gather(
        self, children: Float[Tensor, "batch types height width *pose"]
    ) -> Float[Tensor, "windows in_caps *pose"]:
        """Return each window's children, (batch · H′ · W′, K · K · types, *pose): a batch for the routings."""
        views = children.unfold(2, self.kernel, self.stride).unfold(3, self.kernel, self.stride)
        # (batch, types, H′, W′, *pose, K, K)
        order = (0, 2, 3, views.ndim - 2, views.ndim - 1, 1, *range(4, views.ndim - 2))
        pose = children.shape[4:]
        return views.permute(order).reshape(
            children.shape[0] * self.size[0] * self.size[1], self.kernel**2 * children.shape[1], *pose
        )

    def spread(
        self, parents: Float[Tensor, "windows out_caps *pose"]
    ) -> Float[Tensor, "batch out_caps high wide *pose"]:
        """Return the parents as a map, the inverse order of `gather`."""
        return parents.reshape(-1, *self.size, *parents.shape[1:]).movedim(3, 1)

    def fold(self, log_sums: Float[Tensor, "windows in_caps"]) -> Float[Tensor, "windows in_caps"]:
        """Add up each child's log-sums over all windows that hold it: the normaliser over all its parents."""
        index = self._positions(log_sums.device)  # of every child of every window of a sample
        sums = log_sums.reshape(-1, len(index), log_sums.shape[1] // self.kernel**2)
        where = index[:, None].expand(sums.shape)
        batch = sums.shape[0]  # not len(sums): an exported batch size is a symbol
        most = sums.new_full((batch, self.height * self.width, sums.shape[2]), -torch.inf)
        most = most.scatter_reduce(1, where, sums.detach(), "amax").index_select(1, index)
        total = torch.zeros(
            batch, self.height * self.width, sums.shape[2], dtype=sums.dtype, device=sums.device
        )
        scale = most.new_full(total.shape, 0).scatter(1, where, most)  # each child's largest log-sum
        total = total.index_add(1, index, (sums - most).exp())
        tiny = torch.finfo(sums.dtype).tiny
        return (scale + total.clamp_min(tiny).log()).index_select(1, index).reshape(log_sums.shape)

    def _positions(self, device: torch.device) -> Tensor:
        grid = torch.arange(self.height * self.width, device=device).view(self.height, self.width)
        return grid.unfold(0, self.kernel, self.stride).unfold(1, self.kernel, self.stride).reshape(-1)


def add_coordinates(
    u: Float[Tensor, "batch in_caps rows in_dim"],
    weight: Float[Tensor, "in_caps in_dim out_caps out_dim"],
    coordinates: Float[Tensor, "in_caps 2"],
) -> tuple[Float[Tensor, "batch in_caps rows wider"], Float[Tensor, "in_caps wider out_caps out_dim"]]:
    """Add each child's coordinates to the first two entries of its votes' last column (matrix capsules, section 4.4).

    Returns:
        u with a column more, which holds the coordinates, and W with a row more, which leads it to the last column: any
        routing of these two adds the coordinates.
    """
    column = u.new_zeros(*u.shape[:3], 1)
    column[:, :, :2, 0] = coordinates.to(u.dtype)
    row = weight.new_zeros(len(weight), 1, *weight.shape[2:])
    row[..., -1] = 1
    return torch.cat([u, column], -1), torch.cat([weight, row], 1)
