"""The arithmetic of one unit of the network, for one scene."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from capsnet.explorer.programs.program import Outputs, Program, counted
from capsnet.explorer.programs.scene import Images, Pixels, Transforms, compose, placed
from capsnet.explorer.programs.trace import Number, maps_of
from capsnet.explorer.schemas import (
    MAX_POOL,
    ChildResponse,
    MapsResponse,
    PixelResponse,
    PoolResponse,
)
from capsnet.functional import squash
from capsnet.models.protocols import Routed, Traceable

#: Points of the plotted squash function, and the length that it reaches at least.
CURVE_POINTS = 121
CURVE_END = 4.0


class _OfModel(Program):
    def __init__(self, model: Traceable) -> None:
        super().__init__()
        self.model = model

    def image(self, pixels: Pixels, transforms: Transforms) -> Images:
        """Return the network's input, (1, channels, height, width)."""
        return compose(placed(pixels, transforms, self.model.config.image_shape))


class Maps(_OfModel):
    """All Conv1 maps and their kernels."""

    answer = MapsResponse

    def forward(self, pixels: Pixels, transforms: Transforms) -> Outputs:
        """Return the maps after their ReLU."""
        maps = maps_of(self.model, self.image(pixels, transforms))
        return {"maps": maps, "kernels": self.model.primary.conv1.weight * 1}


class Pixel(_OfModel):
    """One value of Conv1, from its patch and kernel."""

    answer = PixelResponse

    def forward(
        self, pixels: Pixels, transforms: Transforms, channel: Number, row: Number, column: Number
    ) -> Outputs:
        """Return relu(w · x + b) with all its terms."""
        conv1 = self.model.primary.conv1
        image = self.model.prepare(self.image(pixels, transforms))
        maps = conv1(image).relu()[0]
        top, left = row * conv1.stride[0], column * conv1.stride[1]
        patch = cut(image[0], top, left, conv1.kernel_size)
        kernel = conv1.weight.index_select(0, channel[None])[0]
        assert conv1.bias is not None
        return {
            "patch": patch,
            "kernel": kernel,
            "products": patch * kernel,
            "dot": (patch * kernel).sum(),
            "bias": conv1.bias.index_select(0, channel[None])[0],
            "value": cut(maps.index_select(0, channel[None]), row, column, (1, 1)).sum(),
            "top": top,
            "left": left,
        }


def cut(
    maps: Float[Tensor, "channels rows columns"], top: Number, left: Number, size: tuple[int, ...]
) -> Float[Tensor, "channels height width"]:
    """Return the window of a size whose corner is (top, left)."""
    rows = maps.index_select(1, top + torch.arange(size[0]))
    return rows.index_select(2, left + torch.arange(size[1]))


class Child(Program):
    """One child of the class capsules, and its vote for one of them; for CapsNet, how it came about as well."""

    answer = ChildResponse

    def __init__(self, model: Routed) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, pixels: Pixels, transforms: Transforms, iterations: Number, child: Number, parent: Number
    ) -> Outputs:
        """Return the child, its W, its vote, and its routing."""
        model = self.model
        image = compose(placed(pixels, transforms, model.config.image_shape))
        maps = None
        if isinstance(model, Traceable):
            trace = model.trace(image, self.steps(iterations))
            maps, whole = trace.maps[0], trace.routing
        else:
            whole = model.class_routing(image, self.steps(iterations))
        routing = self.kept(whole, iterations)
        assert routing.children is not None
        assert routing.weight is not None
        u = routing.children[0].index_select(0, child[None])[0]
        weight = routing.weight.index_select(0, child[None])[0].index_select(1, parent[None])[:, 0].T
        vote = (u @ weight.T).flatten()
        found = {
            "child": child * 1,
            "u": u.flatten(),
            "length": routing.presence[0].index_select(0, child[None])[0],
            "weight": weight * 1,
            "vote": vote,
            "logits": routing.logits[:, 0].index_select(1, child[None])[:, 0],
            "couplings": routing.couplings[:, 0].index_select(1, child[None])[:, 0],
            "agreement": routing.outputs[:, 0].flatten(2).index_select(1, parent[None])[:, 0] @ vote,
        }
        return found if maps is None else found | self.of_capsnet(maps, child)

    def of_capsnet(self, maps: Float[Tensor, "channels rows columns"], child: Number) -> Outputs:
        """Return a primary capsule's place, its receptive field, and its vector before squash."""
        config = self.model.config
        rows, columns = config.grid
        kind, place = child // (rows * columns), child % (rows * columns)
        row, column = place // columns, place % columns
        before = self.before_squash(maps, kind, row, column)
        end = (1.1 * before.norm()).clamp(min=CURVE_END)
        norms = end * torch.arange(CURVE_POINTS) / (CURVE_POINTS - 1)
        step = config.primary_stride * config.stem_stride
        size = config.stem_kernel + config.stem_stride * (config.primary_kernel - 1)
        top, left = row * step, column * step
        return {
            "type": kind,
            "row": row,
            "column": column,
            "field": torch.stack((top, left, top + size, left + size)),
            "before": before,
            "before_length": before.norm(),
            "squash_curve": torch.stack((norms, squash(norms[:, None])[:, 0]), dim=1),
        }

    def before_squash(
        self, maps: Float[Tensor, "channels rows columns"], kind: Number, row: Number, column: Number
    ) -> Float[Tensor, " dim"]:
        """Compute s of one primary capsule with the second convolution."""
        assert isinstance(self.model, Traceable)
        primary, config = self.model.primary, self.model.config
        size = (config.primary_kernel, config.primary_kernel)
        patch = cut(maps, row * config.primary_stride, column * config.primary_stride, size)
        own = kind * config.primary_dim + torch.arange(config.primary_dim)
        assert primary.conv2.bias is not None
        weight = primary.conv2.weight.index_select(0, own) * primary.scale
        return torch.einsum("dchw,chw->d", weight, patch) + primary.conv2.bias.index_select(0, own)


class Pool(_OfModel):
    """Max-pool one Conv1 map, and a shuffled map that pools to exactly the same result.

    The values of each window are rotated by about half of their positions, so only positions change.
    """

    answer = PoolResponse

    def forward(self, pixels: Pixels, transforms: Transforms, channel: Number, size: Number) -> Outputs:
        """Return both maps, what they pool to, and where the largest values are."""
        whole = maps_of(self.model, self.image(pixels, transforms)).index_select(0, channel[None])[0]
        rows, columns = torch.tensor(whole.shape[0]) // size, torch.tensor(whole.shape[1]) // size
        y, x = torch.arange(whole.shape[0])[:, None], torch.arange(whole.shape[1])
        # A value's number in its window, and the number of the value that takes its place.
        number = (y % size) * size + x % size
        source = (number - (size * size // 2 + size % 2)) % (size * size)
        from_y = (y // size * size + source // size).clamp(max=whole.shape[0] - 1)
        from_x = (x // size * size + source % size).clamp(max=whole.shape[1] - 1)
        shuffled = whole.flatten()[from_y * whole.shape[1] + from_x]

        pooled, winners = max_pool(whole, size)
        shuffled_pooled, moved_to = max_pool(shuffled, size)
        down = counted(rows, 1, whole.shape[0] // 2)
        across = counted(columns, 1, whole.shape[1] // 2)
        pooled, shuffled_pooled = pooled[:down, :across], shuffled_pooled[:down, :across]
        winners, moved_to = winners[:down, :across], moved_to[:down, :across]
        alive = pooled > 0
        distance = (winners - moved_to).norm(dim=2)
        side = counted(size, 2, MAX_POOL)
        height, width = down * side, across * side
        return {
            "size": size * 1,
            "map": whole[:height, :width],
            "pooled": pooled,
            "winners": winners,
            "shuffled": shuffled[:height, :width],
            "shuffled_pooled": shuffled_pooled,
            "moved": (distance * alive).sum() / alive.sum().clamp(min=1),
        }


def max_pool(
    values: Float[Tensor, "rows columns"], size: Number
) -> tuple[Float[Tensor, "down across"], Float[Tensor, "down across 2"]]:
    """Max-pool with windows of a size that is a tensor; also return row and column of each largest value.

    The result has room for the smallest windows, 2×2. Beyond the map's last whole window its values mean nothing.
    """
    height, width = values.shape
    number = torch.arange(MAX_POOL * MAX_POOL)
    y = torch.arange(height // 2)[:, None, None] * size + number // size
    x = torch.arange(width // 2)[:, None] * size + number % size
    inside = (number < size * size) & (y < height) & (x < width)
    index = y.clamp(max=height - 1) * width + x.clamp(max=width - 1)
    windows = torch.where(inside, values.flatten()[index], -torch.inf)
    largest = windows.argmax(dim=2, keepdim=True)
    place = index.gather(2, largest)
    winners = torch.cat((place // width, place % width), dim=2).float()
    return windows.amax(dim=2), winners
