"""The network of "Dynamic Routing Between Capsules", readable from top to bottom."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from capsnet._support.errors import CapsnetError
from capsnet._support.validation import Size, Weight, Widths, configuration
from capsnet.functional import RECONSTRUCTION_WEIGHT
from capsnet.layers.capsule_layer import CapsuleLayer
from capsnet.layers.class_vectors import ClassVectors
from capsnet.layers.decoder import Decoder
from capsnet.layers.primary_capsules import PrimaryCapsules
from capsnet.models.capsule_classifier import CapsuleClassifier, lengths_of
from capsnet.models.config import ClassifierConfig
from capsnet.models.registry import register
from capsnet.routing import Gradient, RoutingTrace
from capsnet.routing.registry import has_option

if TYPE_CHECKING:
    from capsnet.data.dataset import Dataset

__all__ = ["CapsNet", "CapsNetConfig", "CapsNetTrace", "lengths_of", "start_as_official"]


@configuration
class CapsNetConfig(ClassifierConfig):
    """Configuration of a CapsNet and its loss.

    The defaults are the published network for digits.

    Raises:
        CapsnetError: a value is wrong, the images are too small for the two convolutions, or the network is too large.
    """

    stem_channels: Size = 256
    """Channels of Conv1."""
    stem_kernel: Size = 9
    stem_stride: Size = 1
    primary_types: Size = 32
    """Capsule types at each place of the primary capsules' grid."""
    primary_dim: Size = 8
    primary_kernel: Size = 9
    primary_stride: Size = 2
    class_dim: Size = 16
    routing: str = "dynamic"
    """A name in `capsnet.routing.ROUTINGS`. Options of dynamic routing do not go with others."""
    routing_iterations: Annotated[int, Field(ge=1, le=100)] = 3
    """Routing iterations r. 1 is routing without agreement: uniform couplings."""
    decoder: Widths | None = (512, 1024)
    """Hidden widths of the decoder; None trains without reconstruction."""

    # Readings: the paper's text leaves a choice, or the authors' code differs from the text.
    routing_bias: bool = False
    """Add a learned bias to s before squash."""
    routing_leaky: bool = False
    """An extra zero logit in the softmax over parents ("none of the above", used for CIFAR-10)."""
    routing_gradient: Gradient = "all"
    """Gradient through all routing iterations, or only through the last."""
    official_init: bool = False
    """Initialise as the authors' code does, and divide the weights of the primary convolution by 32."""
    margin_weight: Weight = 1.0
    reconstruction_weight: Weight = RECONSTRUCTION_WEIGHT

    def __post_init__(self) -> None:
        readings = (self.routing_bias, self.routing_leaky, self.official_init, self.routing_gradient != "all")
        if self.routing != "dynamic" and any(readings):
            raise CapsnetError(
                f"CapsNetConfig: routing {self.routing!r} has no bias, leaky softmax, gradient option or official "
                "initialisation; these are readings of dynamic routing"
            )
        if min(self.grid) < 1:
            smallest = self.stem_kernel + self.stem_stride * (self.primary_kernel - 1)
            raise CapsnetError(
                f"CapsNetConfig: a {self.image_shape[1]}×{self.image_shape[2]} image is too small for a "
                f"{self.stem_kernel}×{self.stem_kernel} and a {self.primary_kernel}×{self.primary_kernel} "
                f"convolution; it must be at least {smallest}×{smallest}, or the kernels smaller"
            )
        super().__post_init__()

    @classmethod
    def fields_for(cls, dataset: Dataset) -> dict[str, Any]:
        """Return the fields that a data set determines.

        No decoder if an image may show any number of classes: which part belongs to which class is unknown.
        """
        without = {"decoder": None} if dataset.is_multi_label else {}
        return {**super().fields_for(dataset), **without}

    def build(self, *, backend: str = "auto") -> CapsNet:
        """Return an untrained CapsNet. Seed PyTorch first."""
        return CapsNet(self, backend=backend)

    @classmethod
    def official(cls, **changes: Any) -> Self:
        """Return the reading of the authors' code (see docs/readings.md)."""
        preset = {
            "routing_bias": True,
            "official_init": True,
            # Half of the paper's margin loss, and a mean over ten classes. The reconstruction weight is the same.
            "margin_weight": 1 / 20,
        }
        return cls(**{**preset, **changes})

    @classmethod
    def small_for(cls, dataset: Dataset, **changes: Any) -> Self:
        """Return a small CapsNet whose kernels fit the data set's images.

        The kernels are those of the paper from 26 pixels on. Below 17 pixels the primary capsules have a stride of 1,
        so that enough of them are left.

        Args:
            dataset: the training data.
            changes: other fields.
        """
        side = min(dataset.image_shape[1:])
        kernel = max(1, min(9, (side + 1) // 3))
        small = {
            "stem_channels": 64,
            "stem_kernel": kernel,
            "primary_types": 8,
            "primary_kernel": kernel,
            "primary_stride": 2 if side >= 17 else 1,
            "decoder": (256, 512),
        }
        return cls.for_dataset(dataset, **{**small, **changes})

    @property
    def grid(self) -> tuple[int, int]:
        """Return rows and columns of the primary capsules' grid."""
        _, height, width = self.image_shape
        rows, columns = (
            ((size - self.stem_kernel) // self.stem_stride + 1 - self.primary_kernel) // self.primary_stride
            + 1
            for size in (height, width)
        )
        return rows, columns

    @property
    def in_caps(self) -> int:
        """Return the number of primary capsules."""
        return self.primary_types * prod(self.grid)


@dataclass(frozen=True, eq=False)
class CapsNetTrace:
    """All intermediate results from images to class capsules."""

    maps: Float[Tensor, "batch stem_channels rows columns"]
    """Conv1 after its ReLU."""
    primary: Float[Tensor, "batch in_caps primary_dim"]
    """Primary capsules u, ordered by type, row, column."""
    routing: RoutingTrace
    capsules: Float[Tensor, "batch num_classes class_dim"]
    """Class capsules v, the last iteration's outputs."""

    def _repr_html_(self) -> str:
        """Return the routing as a table for notebooks."""
        return self.routing._repr_html_()

    @property
    def lengths(self) -> Float[Tensor, "batch num_classes"]:
        """Return ‖v‖, the probability that each class is present."""
        return lengths_of(self.capsules)


@register("capsnet")
class CapsNet(CapsuleClassifier):
    """CapsNet (section 4, figures 1 and 2).

    Image → Conv1 → primary capsules → routing → class capsules.

    Args:
        config: sizes and readings; the published network by default.
        backend: routing backend, see `capsnet.routing.route`.

    Shape:
        images in [0, 1] (batch, channels, height, width) → class capsules (batch, classes, class_dim)

    >>> model = CapsNet(CapsNetConfig())
    >>> model(torch.rand(2, 1, 28, 28)).shape
    torch.Size([2, 10, 16])
    """

    config_class = CapsNetConfig
    renamed_weights: ClassVar[dict[str, str]] = {"classes.": "class_capsules."}
    config: CapsNetConfig

    def __init__(self, config: CapsNetConfig | None = None, *, backend: str = "auto") -> None:
        super().__init__()
        self.config = config = config or CapsNetConfig()
        self.primary = PrimaryCapsules(
            config.image_shape[0],
            config.stem_channels,
            config.primary_types,
            config.primary_dim,
            stem_kernel=config.stem_kernel,
            stem_stride=config.stem_stride,
            kernel=config.primary_kernel,
            stride=config.primary_stride,
            scale=1 / 32 if config.official_init else 1.0,
        )
        sizes = (config.in_caps, config.primary_dim, config.num_classes, config.class_dim)
        self.class_capsules: CapsuleLayer
        if config.routing == "dynamic":
            self.class_capsules = CapsuleLayer(
                *sizes,
                iterations=config.routing_iterations,
                bias=config.routing_bias,
                leaky=config.routing_leaky,
                gradient=config.routing_gradient,
                backend=backend,
            )
        else:
            iterates = has_option(config.routing, "iterations")
            self.class_capsules = ClassVectors(
                *sizes,
                routing=config.routing,
                iterations=config.routing_iterations if iterates else None,
                backend=backend if has_option(config.routing, "backend") else None,
            )
        self.decoder = (
            None
            if config.decoder is None
            else Decoder(config.num_classes, config.class_dim, config.decoder, config.image_shape)
        )
        if config.official_init:
            start_as_official(self)

    def forward(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch num_classes class_dim"]:
        """Return the class capsules v; their lengths say which classes are present."""
        capsules: Tensor = self.class_capsules(self.primary(self.prepare(images)))
        return capsules

    @torch.no_grad()
    def trace(
        self, images: Float[Tensor, "batch channels height width"], iterations: int | None = None
    ) -> CapsNetTrace:
        """Run the network and return all intermediate results.

        Args:
            images: a batch.
            iterations: routing iterations; None: the model's number.
        """
        images = self.prepare(images)
        maps = self.primary.conv1(images).relu()
        primary = self.primary(images)
        routing = self.class_capsules.trace(primary, iterations)
        return CapsNetTrace(maps, primary, routing, routing.outputs[-1])

    @torch.no_grad()
    def class_routing(
        self, images: Float[Tensor, "batch channels height width"], iterations: int | None = None
    ) -> RoutingTrace:
        """Return the routing to the class capsules, iteration by iteration."""
        return self.class_capsules.trace(self.primary(self.prepare(images)), iterations)


def start_as_official(model: CapsNet) -> None:
    """Initialise as the authors' code: truncated normal weights, biases of 0.1."""
    deviations: dict[nn.Module, float] = {model.primary.conv1: 0.05, model.primary.conv2: 0.1}
    if model.decoder is not None:
        deviations |= {layer: 0.1 for layer in model.decoder.layers if isinstance(layer, nn.Linear)}
    for layer, std in deviations.items():
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        assert layer.bias is not None
        nn.init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std)
        nn.init.constant_(layer.bias, 0.1)
    nn.init.trunc_normal_(model.class_capsules.weight, std=0.1, a=-0.2, b=0.2)
