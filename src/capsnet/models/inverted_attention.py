"""Capsules with inverted dot-product attention routing (Tsai, Srivastava, Goh, Salakhutdinov 2020)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from capsnet._support.errors import CapsnetError
from capsnet._support.validation import MAX_ITEMS, Size, configuration
from capsnet.functional import at_least_float32, shared_cross_entropy
from capsnet.layers.capsule_layer import CapsuleLayer
from capsnet.layers.conv_capsules import ConvCapsules
from capsnet.models.authors import Arrays, same
from capsnet.models.base import Classifier
from capsnet.models.config import ClassifierConfig, refuse_multi_label
from capsnet.models.registry import register
from capsnet.models.residual import residual_blocks
from capsnet.routing import InvertedAttention, RoutingTrace, route_concurrently
from capsnet.routing.trace import Steps, trace_of

if TYPE_CHECKING:
    from capsnet.data.dataset import Batch, Dataset

Sizes = Annotated[tuple[Size, ...], Field(max_length=MAX_ITEMS)]


@configuration
class InvertedAttentionConfig(ClassifierConfig):
    """Configuration of capsules with inverted dot-product attention.

    The defaults are the published network for CIFAR-10, with the ResNet backbone.

    Raises:
        CapsnetError: a value is wrong, a kernel is larger than its map, or the network is too large.
    """

    backbone: Literal["simple", "resnet"] = "resnet"
    """"simple": one 3×3 convolution of stride 2 and ReLU. "resnet": 3 + 4 basic blocks, the last 4 of stride 2."""
    backbone_channels: Size = 128
    primary_types: Size = 32
    pose_side: Annotated[int, Field(ge=1, le=100)] = 4
    """P; poses are P × P matrices."""
    conv_types: Sizes = (32, 32)
    """Types of each convolutional capsule layer."""
    conv_kernel: Size = 3
    conv_strides: Sizes = (2, 1)
    routing_iterations: Annotated[int, Field(ge=1, le=100)] = 2
    """Iterations; 1 is an ordinary forward pass with uniform couplings."""
    order: Literal["concurrent", "sequential"] = "concurrent"
    """"concurrent": every iteration updates all layers at once. "sequential": a layer ends before the next begins."""

    def __post_init__(self) -> None:
        if len(self.conv_types) != len(self.conv_strides):
            raise CapsnetError(
                f"InvertedAttentionConfig: {len(self.conv_types)} conv_types and {len(self.conv_strides)} "
                "conv_strides; give one stride for each convolutional capsule layer"
            )
        for size in self.grids[1:-1]:
            if self.conv_kernel > min(size):
                raise CapsnetError(
                    f"InvertedAttentionConfig: the window is {self.conv_kernel}×{self.conv_kernel} and a map is "
                    f"{size[0]}×{size[1]}; choose larger images, or smaller kernels or strides"
                )
        super().__post_init__()

    @classmethod
    def fields_for(cls, dataset: Dataset) -> dict[str, Any]:
        """Return the fields that a data set determines."""
        refuse_multi_label(dataset, "inverted-attention")
        return super().fields_for(dataset)

    def build(self, *, backend: str = "auto") -> InvertedAttentionCapsules:
        """Return untrained capsules. Seed PyTorch first."""
        return InvertedAttentionCapsules(self, backend=backend)

    @property
    def grids(self) -> list[tuple[int, int]]:
        """Return rows and columns of the image, the primary capsules and each layer's map."""
        rows, columns = self.image_shape[1:]
        sizes = [(rows, columns), ((rows + 1) // 2, (columns + 1) // 2)]
        for stride in self.conv_strides:
            rows, columns = ((side - self.conv_kernel) // stride + 1 for side in sizes[-1])
            sizes.append((rows, columns))
        return sizes


@register("inverted-attention")
class InvertedAttentionCapsules(Classifier):
    """Image → backbone → primary capsules → convolutional capsules → class capsules → logits.

    Args:
        config: sizes; the published network for CIFAR-10 by default.
        backend: routing backend, see `capsnet.routing.agree`.

    Shape:
        images in [0, 1] (batch, channels, height, width) → logits (batch, classes)
    """

    config_class = InvertedAttentionConfig
    config: InvertedAttentionConfig

    def __init__(self, config: InvertedAttentionConfig | None = None, *, backend: str = "auto") -> None:
        super().__init__()
        self.config = config = config or InvertedAttentionConfig()
        channels, side, types = (
            config.image_shape[0],
            config.pose_side,
            (config.primary_types, *config.conv_types),
        )

        def routing() -> InvertedAttention:
            return InvertedAttention(config.routing_iterations, side, backend)

        self.backbone = (
            nn.Sequential(nn.Conv2d(channels, config.backbone_channels, 3, 2, 1), nn.ReLU())
            if config.backbone == "simple"
            else residual_blocks(channels, config.backbone_channels)
        )
        self.primary = nn.Conv2d(config.backbone_channels, types[0] * side**2, 1, bias=False)
        self.primary_norm = nn.LayerNorm(side**2)
        self.conv_capsules = nn.ModuleList(
            ConvCapsules(
                children,
                side,
                parents,
                side,
                kernel=config.conv_kernel,
                stride=stride,
                routing=routing(),
                init_std=(parents / (side * config.conv_kernel**2 * children)) ** 0.5,
            )
            for children, parents, stride in zip(types, types[1:], config.conv_strides, strict=False)
        )
        in_caps = types[-1] * prod(config.grids[-1])
        self.class_capsules = CapsuleLayer(
            in_caps,
            side,
            config.num_classes,
            side,
            routing=routing(),
            init_std=(config.num_classes / (side * in_caps)) ** 0.5,
        )
        self.last = nn.Linear(side**2, 1)

    def primary_capsules(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch types rows columns side side"]:
        """Return the poses of the primary capsules."""
        side = self.config.pose_side
        maps = at_least_float32(self.primary(self.backbone(self.prepare(images))))
        batch, _, rows, columns = maps.shape
        poses = maps.reshape(batch, -1, side**2, rows, columns).permute(0, 1, 3, 4, 2)
        normed: Tensor = self.primary_norm(poses)
        return normed.reshape(batch, -1, rows, columns, side, side)

    def class_poses_of(
        self,
        u: Float[Tensor, "batch types rows columns side side"],
        iterations: int | None = None,
        steps: Steps | None = None,
        children: list[Tensor] | None = None,
    ) -> Float[Tensor, "batch num_classes side side"]:
        """Route the primary capsules to the class capsules, in the configuration's order.

        iterations: of the class capsules; in sequential order, the layers before them keep the configuration's number.
        steps: receives logits, couplings and outputs of the class capsules.
        children: receives the children of the class capsules, in each iteration.
        """
        own = self.config.routing_iterations
        count = own if iterations is None else iterations
        layers = self._layers(steps, children)
        if self.config.order == "concurrent":
            return route_concurrently(layers, u, count)[-1]
        for update in layers:
            parents = None
            for _ in range(count if update is layers[-1] else own):
                parents = update(u, parents)
            assert parents is not None
            u = parents
        return u

    def _layers(
        self, steps: Steps | None, children: list[Tensor] | None
    ) -> list[Callable[[Tensor, Tensor | None], Tensor]]:
        routing: Any = self.class_capsules.routing
        convolutional: Any = self.conv_capsules

        def last(u: Tensor, parents: Tensor | None) -> Tensor:
            u = u.flatten(1, 3)
            if children is not None:
                children.append(u)
            updated: Tensor = routing.update(u, self.class_capsules.weight, parents, steps)
            return updated

        return [*(layer.update for layer in convolutional), last]

    def forward(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch num_classes"]:
        """Return a logit for each class: one linear map, the same for all class capsules."""
        return self._logits(self.class_poses_of(self.primary_capsules(images)))

    def _logits(
        self, poses: Float[Tensor, "*batch num_classes side side"]
    ) -> Float[Tensor, "*batch num_classes"]:
        return at_least_float32(self.last(poses.flatten(-2)).squeeze(-1))

    @torch.no_grad()
    def class_routing(
        self, images: Float[Tensor, "batch channels height width"], iterations: int | None = None
    ) -> RoutingTrace:
        """Return the routing to the class capsules; activations are the scores of each iteration's poses."""
        steps: Steps = []
        children: list[Tensor] = []
        self.class_poses_of(self.primary_capsules(images), iterations, steps, children)
        trace = trace_of(steps)
        activations = self._logits(trace.outputs).softmax(dim=-1)
        return replace(
            trace,
            activations=activations,
            children=children[-1],
            children_by_iteration=torch.stack(children),
            weight=self.class_capsules.weight,
        )

    def scores(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch num_classes"]:
        """Return the softmax of the logits."""
        scores: Tensor = self(images).softmax(dim=1)
        return scores

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the cross entropy."""
        return {"loss": shared_cross_entropy(self(batch.images), batch.targets(self.config.num_classes))}

    @classmethod
    def from_authors(cls, arrays: Mapping[str, Any], *, image_size: int = 32, **changes: Any) -> Self:
        """Build a model from the state of the authors' network, in evaluation mode.

        Sizes are read from the arrays. Strides are those of the authors' configurations: 2 in the first capsule layer,
        1 in the others. Poses are matrices. The authors' program mixes up places and pose numbers in its convolutional
        layers. This one does not, so its scores differ.

        Args:
            arrays: "pre_caps.pre_caps.0.weight", … → arrays, as in the authors' checkpoints.
            image_size: height and width of the images.
            changes: other fields of the configuration, such as order and routing_iterations.

        Raises:
            CapsnetError: an array is missing or has another shape.
        """
        a = Arrays(arrays, "module.")
        weights = a.numbered(r"capsule_layers\.(\d+)\.w")
        matrices = [a.take(name, 4 if name == weights[-1] else 6) for name in weights]
        if not matrices:
            raise CapsnetError("from_authors: the arrays have no 'capsule_layers.0.w'")
        stem, primary = a.take("pre_caps.pre_caps.0.weight", 4), a.take("pc_layer.weight", 4)
        side = matrices[-1].shape[1]
        fields: dict[str, Any] = {
            "image_shape": (stem.shape[1], image_size, image_size),
            "num_classes": matrices[-1].shape[3],
            "backbone": "resnet" if "pre_caps.pre_caps.1.weight" in a else "simple",
            "backbone_channels": primary.shape[1],
            "primary_types": primary.shape[0] // side**2,
            "pose_side": side,
            "conv_types": tuple(matrix.shape[5] for matrix in matrices[:-1]),
            "conv_kernel": matrices[0].shape[0] if len(matrices) > 1 else 3,
            "conv_strides": tuple(2 if number == 0 else 1 for number in range(len(matrices) - 1)),
        }
        model = cls(InvertedAttentionConfig(**fields | changes))
        table: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {}
        renamed = {
            "backbone.": "pre_caps.pre_caps.",
            "primary.": "pc_layer.",
            "primary_norm.": "nonlinear_act.",
            "last.": "final_fc.",
        }
        for own in model.state_dict():
            for new, old in renamed.items():
                if own.startswith(new) and not own.endswith("num_batches_tracked"):
                    table[own] = (own.replace(new, old, 1), same)
        for number, name in enumerate(weights):
            own = f"conv_capsules.{number}" if name != weights[-1] else "class_capsules"
            table[f"{own}.weight"] = (name, _matrices)
            norm = name.removesuffix("w") + "nonlinear_act"
            table |= {f"{own}.routing.gain": (f"{norm}.weight", same)}
            table |= {f"{own}.routing.shift": (f"{norm}.bias", same)}
        a.fill(model, table)
        return model.eval()


def _matrices(weight: Tensor) -> Tensor:
    """Convert (K, K, I, P, P, J) or (I, P, P, J) to (children, P, J, P)."""
    return weight.transpose(-1, -2).flatten(0, -4)
