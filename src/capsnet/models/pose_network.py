"""The network that matrix capsules and variational Bayes capsules have in common: capsules with pose and activation."""

from __future__ import annotations

from math import prod
from typing import Annotated, Any

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from capsnet._support.errors import CapsnetError
from capsnet._support.validation import MAX_ITEMS, Size, configuration
from capsnet.layers.capsule_layer import CapsuleLayer
from capsnet.layers.conv_capsules import ConvCapsules, Coordinates, Normalise, PooledCapsules
from capsnet.layers.primary_poses import PrimaryPoses
from capsnet.models.base import Classifier
from capsnet.models.config import ClassifierConfig
from capsnet.routing import Capsules, Routing, RoutingTrace

Sizes = Annotated[tuple[Size, ...], Field(max_length=MAX_ITEMS)]


@configuration
class PoseNetworkConfig(ClassifierConfig):
    """Sizes of a convolution, primary capsules, convolutional capsule layers and class capsules.

    Raises:
        CapsnetError: a value is wrong, a kernel is larger than its map, or the network is too large.
    """

    stem_channels: Size = 32
    """Channels of the convolution: A."""
    stem_kernel: Size = 5
    stem_stride: Size = 2
    primary_types: Size = 32
    """Types of primary capsules: B."""
    primary_kernel: Size = 1
    primary_stride: Size = 1
    conv_types: Sizes = (32, 32)
    """Types of each convolutional capsule layer: C, D, …; none: the class capsules follow the primary ones."""
    conv_kernel: Size = 3
    conv_strides: Sizes = (2, 1)
    pose_side: Annotated[int, Field(ge=2, le=100)] = 4
    """P; poses are P × P matrices."""
    shared: bool = True
    """The class capsules share W over all places and get coordinates; False: each place has a W of its own."""
    coordinates: Coordinates = "child"
    """Whose coordinates the class capsules get: the child's, or a constant as in the authors' code ("parent")."""
    normalise: Normalise = "all"
    """A child's couplings add up to 1 over all windows that hold it, or in each window."""
    routing_iterations: Annotated[int, Field(ge=1, le=100)] = 3
    norm: bool = True
    """Batch norm after the first convolution and in the primary capsules."""

    def __post_init__(self) -> None:
        owner = type(self).__name__
        if len(self.conv_types) != len(self.conv_strides):
            raise CapsnetError(
                f"{owner}: {len(self.conv_types)} conv_types and {len(self.conv_strides)} conv_strides; give one "
                "stride for each convolutional capsule layer"
            )
        for layer, (kernel, size) in enumerate(zip(self._kernels, self.grids, strict=False)):
            if kernel > min(size):
                raise CapsnetError(
                    f"{owner}: the window of layer {layer + 1} is {kernel}×{kernel} and its map is "
                    f"{size[0]}×{size[1]}; choose larger images, or smaller kernels or strides"
                )
        super().__post_init__()

    @property
    def _kernels(self) -> tuple[int, ...]:
        return (self.stem_kernel, self.primary_kernel, *[self.conv_kernel] * len(self.conv_types))

    @property
    def grids(self) -> list[tuple[int, int]]:
        """Return rows and columns of the image and of each layer's map."""
        sizes = [(self.image_shape[1], self.image_shape[2])]
        strides = (self.stem_stride, self.primary_stride, *self.conv_strides)
        for kernel, stride in zip(self._kernels, strides, strict=True):
            rows, columns = ((side - kernel) // stride + 1 for side in sizes[-1])
            sizes.append((rows, columns))
        return sizes


class PoseNetwork(Classifier):
    """Image → convolution → primary capsules → convolutional capsules → class capsules.

    Subclasses name the routing and the loss. `forward` returns the activations of the class capsules: the scores.
    """

    config: Any

    def __init__(self, config: PoseNetworkConfig) -> None:
        super().__init__()
        self.config = config
        side, types = config.pose_side, (config.primary_types, *config.conv_types)
        self.conv = nn.Conv2d(
            config.image_shape[0],
            config.stem_channels,
            config.stem_kernel,
            config.stem_stride,
            bias=not config.norm,
        )
        nn.init.kaiming_uniform_(self.conv.weight)
        self.conv_norm = nn.BatchNorm2d(config.stem_channels) if config.norm else nn.Identity()
        self.primary = PrimaryPoses(
            config.stem_channels,
            config.primary_types,
            side,
            kernel=config.primary_kernel,
            stride=config.primary_stride,
            norm=config.norm,
        )
        self.conv_capsules = nn.ModuleList(
            ConvCapsules(
                children,
                side,
                parents,
                side,
                kernel=config.conv_kernel,
                stride=stride,
                routing=self.new_routing(),
                normalise=config.normalise,
            )
            for children, parents, stride in zip(types, types[1:], config.conv_strides, strict=False)
        )
        parents = (side, config.num_classes, side)
        self.class_capsules: CapsuleLayer | PooledCapsules
        if config.shared:
            self.class_capsules = PooledCapsules(
                types[-1], *parents, routing=self.new_routing(), coordinates=config.coordinates
            )
        else:
            children = types[-1] * prod(config.grids[-1])
            self.class_capsules = CapsuleLayer(
                children, *parents, routing=self.new_routing(), init_std=side**-0.5
            )

    def new_routing(self) -> Routing:
        """Return the routing of one layer."""
        raise NotImplementedError

    def stages(self, images: Float[Tensor, "batch channels height width"]) -> list[Capsules]:
        """Return poses and activations of each layer, the class capsules last."""
        maps = self.conv_norm(self.conv(self.prepare(images))).relu()
        capsules = [self.primary(maps)]
        for layer in self.conv_capsules:
            capsules.append(layer(*capsules[-1]))
        return [*capsules, self.class_capsules(*self._children(capsules[-1]))]

    def _children(self, capsules: Capsules) -> Capsules:
        """Return what the class capsules take: a map, or a list where each place has a W of its own."""
        if self.config.shared:
            return capsules
        return Capsules(*(x.movedim(1, 3).flatten(1, 3) for x in capsules))

    @torch.no_grad()
    def class_routing(
        self, images: Float[Tensor, "batch channels height width"], iterations: int | None = None
    ) -> RoutingTrace:
        """Return the routing to the class capsules, iteration by iteration."""
        poses, activations = self._children(self.stages(images)[-2])
        return self.class_capsules.trace(poses, iterations, activations)

    def forward(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch num_classes"]:
        """Return the activations of the class capsules."""
        activations: Tensor = self.stages(images)[-1].activations
        return activations

    def scores(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch num_classes"]:
        """Return the activations of the class capsules."""
        activations: Tensor = self(images)
        return activations
