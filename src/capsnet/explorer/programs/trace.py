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
from capsnet.models.protocols import HasFeatures, Traceable

Number = Int[Tensor, ""]


class Trace(Program):
    """Run the network once, and the control beside it.

    Args:
        model: the network.
        control: the network without capsules, if there is one.
        channels: Conv1 maps of the overview.
        planes: the plane in which the capsules of each type are drawn.
    """

    answer = TraceResponse
    planes: Tensor
    channels: Tensor

    def __init__(
        self,
        model: Traceable,
        control: HasFeatures | None,
        channels: list[int],
        planes: Float[Tensor, "types dim 2"],
    ) -> None:
        super().__init__()
        self.model, self.control = model, control
        self.register_buffer("channels", torch.tensor(channels), persistent=False)
        self.register_buffer("planes", planes, persistent=False)

    def forward(self, pixels: Pixels, transforms: Transforms, iterations: Number, focus: Number) -> Outputs:
        """Trace a scene; `focus` is the class whose votes are shown, −1 for the longest capsule's."""
        model, config = self.model, self.model.config
        layers = placed(pixels, transforms, config.image_shape)
        image = compose(layers)
        trace = model.trace(image, self.steps(iterations))
        routing = self.kept(trace.routing, iterations)
        couplings, outputs = routing.couplings[:, 0], routing.outputs[:, 0]
        primary, capsules = trace.primary[0], outputs[-1]
        lengths = lengths_of(capsules)
        ranking = lengths.argsort(descending=True)
        focus = torch.where(focus < 0, ranking[0], focus)

        votes = torch.einsum("ic,icjd->ijd", primary, model.class_capsules.weight)
        sums = torch.einsum("tij,ijd->tjd", couplings, votes)
        if model.class_capsules.bias is not None:
            sums = sums + model.class_capsules.bias
        directions = outputs / lengths_of(outputs)[..., None].clamp(min=1e-12)
        support = couplings * torch.einsum("ijd,tjd->tij", votes, directions)
        by_place = (config.primary_types, *config.grid)
        plane = vote_plane(
            votes.index_select(1, focus[None])[:, 0],
            couplings.index_select(2, focus[None])[:, :, 0],
            outputs.index_select(1, focus[None])[:, 0],
        )
        arrows = flatten_arrows(primary.unflatten(0, (config.primary_types, -1)), self.planes)  # type: ignore[no-untyped-call]
        found = {
            "image": image[0],
            "layers": layers,
            "outlines": outlines(pixels, transforms, config.image_shape),
            "maps": trace.maps[0].index_select(0, self.channels),
            "primary": primary,
            "primary_lengths": lengths_of(primary),
            "arrows": arrows.flatten(0, 1),
            "couplings": couplings,
            "support": support.unflatten(1, by_place).sum(dim=1),  # type: ignore[no-untyped-call]
            "sums": lengths_of(sums),
            "iteration_lengths": lengths_of(outputs),
            "entropy": coupling_entropy(routing)[:, 0],
            "lengths": lengths,
            "capsules": capsules,
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
        if model.decoder is not None:
            everyone = torch.arange(config.num_classes)
            drawn = model.decode(capsules.expand(config.num_classes, -1, -1), everyone)
            found["reconstructions"] = drawn
            found["reconstruction_errors"] = (drawn - image).square().sum(dim=(1, 2, 3))
        found["speakers"] = speakers(ranking, drawn, layers)
        if self.control is not None:
            found["control"] = self.control.scores(image)[0]
        return found


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
