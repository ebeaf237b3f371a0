"""One scene → every value of the network that the page shows."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from capsnet.explain import coupling_entropy
from capsnet.explorer.programs.geometry import flatten_arrows, vote_plane
from capsnet.explorer.programs.program import Outputs, Program
from capsnet.explorer.programs.scene import Images, Pixels, Transforms, compose, outlines, placed
from capsnet.explorer.schemas import TraceResponse
from capsnet.models.capsnet import lengths_of
from capsnet.models.protocols import Routed, Traceable, decodes
from capsnet.routing import RoutingTrace

Number = Int[Tensor, ""]


class Trace(Program):
    """Run the network once.

    Args:
        model: the network.
        channels: Conv1 maps of the overview; none for a network without Conv1.
        planes: the plane in which the primary capsules of each type are drawn.
    """

    answer = TraceResponse
    planes: Tensor
    channels: Tensor

    def __init__(
        self,
        model: Routed,
        channels: list[int],
        planes: Float[Tensor, "types dim 2"],
    ) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("channels", torch.tensor(channels, dtype=torch.int64), persistent=False)
        self.register_buffer("planes", planes, persistent=False)

    def forward(self, pixels: Pixels, transforms: Transforms, iterations: Number, focus: Number) -> Outputs:
        """Trace a scene; `focus` is the class whose votes are shown, −1 for the answer."""
        model, shape = self.model, self.model.config.image_shape
        layers = placed(pixels, transforms, shape)
        image = compose(layers)
        found = {"image": image[0], "layers": layers, "outlines": outlines(pixels, transforms, shape)}
        if isinstance(model, Traceable):
            trace = model.trace(image, self.steps(iterations))
            routing = self.kept(trace.routing, iterations)
            found |= self.of_capsnet(model, trace.maps[0], trace.primary[0], routing)
        else:
            routing = self.kept(model.class_routing(image, self.steps(iterations)), iterations)
        couplings, poses, scores = (
            routing.couplings[:, 0],
            routing.outputs[:, 0].flatten(2),
            routing.scores[:, 0],
        )
        ranking = scores[-1].argsort(descending=True)
        focus = torch.where(focus < 0, ranking[0], focus)
        plane = vote_plane(
            routing.votes().flatten(2).index_select(1, focus[None])[:, 0],
            couplings.index_select(2, focus[None])[:, :, 0],
            poses.index_select(1, focus[None])[:, 0],
        )
        found |= {
            "presence": routing.presence[0],
            "couplings": couplings,
            "iteration_lengths": scores,
            "entropy": coupling_entropy(routing)[:, 0],
            "lengths": scores[-1],
            "capsules": poses[-1],
            "ranking": ranking,
            "cloud.focus": focus,
            "cloud.points": plane.points,
            "cloud.mean": plane.mean,
            "cloud.spread": plane.spread,
            "cloud.outputs": plane.outputs,
            "cloud.rms": plane.rms,
            "cloud.shown": plane.shown,
        }
        drawn = None
        if decodes(model):
            classes = model.config.num_classes
            drawn = model.decode(poses[-1].expand(classes, -1, -1), torch.arange(classes))
            found["reconstructions"] = drawn
            found["reconstruction_errors"] = (drawn - image).square().sum(dim=(1, 2, 3))
        found["speakers"] = speakers(ranking, drawn, layers)
        return found

    def of_capsnet(
        self,
        model: Traceable,
        maps: Float[Tensor, "channels rows columns"],
        primary: Float[Tensor, "in_caps dim"],
        routing: RoutingTrace,
    ) -> Outputs:
        """Return Conv1, the primary capsules on their grid, and what each place adds to the classes."""
        config, votes = model.config, routing.votes()
        couplings, outputs = routing.couplings[:, 0], routing.outputs[:, 0]
        sums = torch.einsum("tij,ijd->tjd", couplings, votes)
        if model.class_capsules.bias is not None:
            sums = sums + model.class_capsules.bias
        directions = outputs / lengths_of(outputs)[..., None].clamp(min=1e-12)
        support = couplings * torch.einsum("ijd,tjd->tij", votes, directions)
        by_place = (config.primary_types, *config.grid)
        arrows = flatten_arrows(primary.unflatten(0, (config.primary_types, -1)), self.planes)  # type: ignore[no-untyped-call]
        return {
            "maps": maps.index_select(0, self.channels),
            "primary": primary,
            "arrows": arrows.flatten(0, 1),
            "support": support.unflatten(1, by_place).sum(dim=1),  # type: ignore[no-untyped-call]
            "sums": lengths_of(sums),
        }


def speakers(
    ranking: Int[Tensor, " classes"], drawn: Images | None, layers: Images
) -> Int[Tensor, " layers"]:
    """Assign the longest capsules to the layers by reconstruction error."""
    longest = ranking[: layers.shape[0]]
    if drawn is None:
        return longest
    error = (drawn.index_select(0, longest)[:, None] - layers).square().sum(dim=(2, 3, 4))  # (class, layer)
    # With one layer the flipped order is the same.
    crossed = error.flip(0).diagonal().sum() < error.diagonal().sum()
    return torch.where(crossed, longest.flip(0), longest)


def maps_of(model: Traceable, image: Images) -> Float[Tensor, "channels rows columns"]:
    """Return Conv1 after its ReLU."""
    conv1: nn.Module = model.primary.conv1
    maps: Tensor = conv1(model.prepare(image)).relu()
    return maps[0]
