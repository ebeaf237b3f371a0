"""The network of "Dynamic Routing Between Capsules", readable from top to bottom."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from capsnet._support.errors import CapsnetError
from capsnet._support.fields import settle
from capsnet._support.limits import check_sizes, check_totals
from capsnet.functional import RECONSTRUCTION_WEIGHT, margin_loss, reconstruction_loss
from capsnet.layers.capsule_layer import CapsuleLayer
from capsnet.layers.decoder import Decoder
from capsnet.layers.primary_capsules import PrimaryCapsules
from capsnet.models.base import Classifier
from capsnet.routing import Gradient, RoutingTrace

if TYPE_CHECKING:
    from capsnet.data.dataset import Batch


@dataclass(frozen=True)
class CapsNetConfig:
    """Everything that defines a CapsNet and its objective. The defaults are the published network for digits.

    Raises:
        CapsnetError: sizes that do not fit together; an image too small for the two convolutions; a wrong type.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    image_shape: tuple[int, int, int] = (1, 28, 28)
    """(channels, height, width)."""
    classes: int = 10
    stem_channels: int = 256
    """Channels of Conv1."""
    stem_kernel: int = 9
    stem_stride: int = 1
    primary_types: int = 32
    """Capsule types at each place of the primary capsules' grid."""
    primary_dim: int = 8
    primary_kernel: int = 9
    primary_stride: int = 2
    class_dim: int = 16
    iterations: int = 3
    """Routing iterations r. 1 is routing without agreement: uniform couplings."""
    decoder: tuple[int, ...] | None = (512, 1024)
    """Hidden widths of the decoder; None trains without reconstruction."""

    # Readings: where the text leaves a choice, or the authors' code differs from it.
    bias: bool = False
    """Add a learned bias to s before squash."""
    leaky: bool = False
    """An extra zero logit in the softmax over parents ("none of the above", used for CIFAR-10)."""
    gradient: Gradient = "all"
    """Gradient through all routing iterations, or the last only."""
    official_init: bool = False
    """Start weights and biases as the authors' code does, with the primary convolution divided by 32."""
    margin_weight: float = 1.0
    reconstruction_weight: float = RECONSTRUCTION_WEIGHT

    def __post_init__(self) -> None:
        settle(self)
        sizes = {
            "image_shape": self.image_shape,
            "classes": (self.classes,),
            "stem_channels": (self.stem_channels,),
            "stem_kernel": (self.stem_kernel,),
            "stem_stride": (self.stem_stride,),
            "primary_types": (self.primary_types,),
            "primary_dim": (self.primary_dim,),
            "primary_kernel": (self.primary_kernel,),
            "primary_stride": (self.primary_stride,),
            "class_dim": (self.class_dim,),
            "iterations": (self.iterations,),
            "decoder": self.decoder or (),
        }
        check_sizes("CapsNetConfig", sizes, {"decoder": len(self.decoder or ())})
        if self.classes < 2:
            raise CapsnetError(f"CapsNetConfig: classes is {self.classes}; a classifier needs at least 2")
        if self.iterations > 100:
            raise CapsnetError(f"CapsNetConfig: iterations is {self.iterations}; more than 100 is no routing")
        for name in ("margin_weight", "reconstruction_weight"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise CapsnetError(
                    f"CapsNetConfig: {name} is {getattr(self, name)}; it must be finite and ≥ 0"
                )
        if min(self.grid) < 1:
            smallest = self.stem_kernel + self.stem_stride * (self.primary_kernel - 1)
            raise CapsnetError(
                f"CapsNetConfig: a {self.image_shape[1]}×{self.image_shape[2]} image is too small for a "
                f"{self.stem_kernel}×{self.stem_kernel} and a {self.primary_kernel}×{self.primary_kernel} "
                f"convolution; it must be at least {smallest}×{smallest}, or the kernels smaller"
            )
        check_totals("CapsNetConfig", self.parameter_count(), self._largest_tensor())

    @classmethod
    def official(cls, **changes: Any) -> Self:
        """The authors' code where it differs from the paper's text (see docs/readings.md)."""
        preset = {
            "bias": True,
            "official_init": True,
            # Half the equation's, and a mean over the ten classes; reconstruction stays as it is.
            "margin_weight": 1 / 20,
        }
        return cls(**{**preset, **changes})

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the primary capsules' grid."""
        _, height, width = self.image_shape
        rows, columns = (
            ((size - self.stem_kernel) // self.stem_stride + 1 - self.primary_kernel) // self.primary_stride
            + 1
            for size in (height, width)
        )
        return rows, columns

    @property
    def in_caps(self) -> int:
        """Number of primary capsules."""
        return self.primary_types * prod(self.grid)

    def parameter_count(self) -> int:
        """Trained numbers of the network, computed without building it."""
        channels = self.image_shape[0]
        primary = self.primary_types * self.primary_dim
        count = self.stem_channels * (channels * self.stem_kernel**2 + 1)
        count += primary * (self.stem_channels * self.primary_kernel**2 + 1)
        count += self.in_caps * self.primary_dim * self.classes * self.class_dim
        count += self.classes * self.class_dim * self.bias
        if self.decoder is not None:
            widths = (self.classes * self.class_dim, *self.decoder, prod(self.image_shape))
            count += sum((fan_in + 1) * fan_out for fan_in, fan_out in pairwise(widths))
        return count

    def _largest_tensor(self) -> int:
        maps = self.stem_channels * prod(
            (size - self.stem_kernel) // self.stem_stride + 1 for size in self.image_shape[1:]
        )
        votes = self.in_caps * self.classes * self.class_dim
        return max(prod(self.image_shape), maps, self.in_caps * self.primary_dim, votes)


@dataclass(frozen=True, eq=False)
class CapsNetTrace:
    """Everything on the way from images to class capsules."""

    maps: Float[Tensor, "batch stem_channels rows columns"]
    """Conv1 after its ReLU."""
    primary: Float[Tensor, "batch in_caps primary_dim"]
    """Primary capsules u, ordered by type, row, column."""
    routing: RoutingTrace
    capsules: Float[Tensor, "batch classes class_dim"]
    """Class capsules v, the last iteration's outputs."""

    @property
    def lengths(self) -> Float[Tensor, "batch classes"]:
        """‖v‖: the probability that each class is there."""
        return lengths_of(self.capsules)


class CapsNet(Classifier):
    """CapsNet (section 4, figures 1 and 2): image → Conv1 → primary capsules → routing → class capsules.

    Args:
        config: sizes and readings; the published network by default.
        backend: routing backend, see `capsnet.routing.route`.

    Shape:
        images in [0, 1] (batch, channels, height, width) → class capsules (batch, classes, class_dim)

    >>> model = CapsNet(CapsNetConfig())
    >>> model(torch.rand(2, 1, 28, 28)).shape
    torch.Size([2, 10, 16])
    """

    architecture = "capsnet"
    config_class = CapsNetConfig
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
        self.classes = CapsuleLayer(
            config.in_caps,
            config.primary_dim,
            config.classes,
            config.class_dim,
            iterations=config.iterations,
            bias=config.bias,
            leaky=config.leaky,
            gradient=config.gradient,
            backend=backend,
        )
        self.decoder = (
            None
            if config.decoder is None
            else Decoder(config.classes, config.class_dim, config.decoder, config.image_shape)
        )
        if config.official_init:
            start_as_official(self)

    def forward(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch classes class_dim"]:
        """Class capsules v; their lengths say which classes are there."""
        self.check_images(images)
        capsules: Tensor = self.classes(self.primary(images))
        return capsules

    def scores(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        """Lengths of the class capsules."""
        return lengths_of(self(images))

    def decode(
        self,
        capsules: Float[Tensor, "batch classes class_dim"],
        classes: Int[Tensor, " batch"] | int | None = None,
    ) -> Float[Tensor, "batch channels height width"]:
        """Reconstruct images from one capsule each; all others are masked to zero.

        Args:
            capsules: class capsules.
            classes: whose capsule speaks: one class per example, one for all, or None for the longest.

        Raises:
            ValueError: the model was trained without a decoder; a class that there is not (not looked for when
                compiled); classes that are no integers, or not one for each example.
        """
        if self.decoder is None:
            raise ValueError("decode: this model has no decoder (CapsNetConfig.decoder is None)")
        if classes is None:
            classes = lengths_of(capsules).argmax(dim=1)
        elif isinstance(classes, int):
            if not 0 <= classes < capsules.shape[1]:
                raise ValueError(f"decode: there is no class {classes} among {capsules.shape[1]}")
            classes = torch.full(capsules.shape[:1], classes, device=capsules.device)
        elif classes.shape != capsules.shape[:1]:
            raise ValueError(
                f"decode: classes {tuple(classes.shape)} must be one for each of {len(capsules)} examples"
            )
        else:
            _check_classes(classes, capsules.shape[1])
        images: Tensor = self.decoder(capsules, classes)
        return images

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Margin loss, plus the reconstruction error of each digit that is there, decoded alone (section 4.1)."""
        capsules = self(batch.images)
        lengths = lengths_of(capsules)
        margin = margin_loss(lengths, batch.targets(self.config.classes))
        loss = self.config.margin_weight * margin
        parts = {"margin": margin}
        if self.decoder is not None:
            digits = batch.labels.shape[1]
            # Not `decode`, which waits for the device to look at the classes.
            decoded = self.decoder(capsules.repeat_interleave(digits, dim=0), batch.labels.flatten())
            # A mean over all B·K decoded images times K: the sum over an example's digits, averaged over the batch.
            reconstruction = digits * reconstruction_loss(decoded, batch.originals.flatten(0, 1))
            loss = loss + self.config.reconstruction_weight * reconstruction
            parts["reconstruction"] = reconstruction
        return {"loss": loss, **parts}

    @torch.no_grad()
    def trace(
        self, images: Float[Tensor, "batch channels height width"], iterations: int | None = None
    ) -> CapsNetTrace:
        """Run the network and keep everything on the way.

        Args:
            images: a batch.
            iterations: routing iterations, if other than the model's own.
        """
        self.check_images(images)
        maps = self.primary.conv1(images).relu()
        primary = self.primary(images)
        routing = self.classes.trace(primary, iterations)
        return CapsNetTrace(maps, primary, routing, routing.outputs[-1])


def _check_classes(classes: Tensor, count: int) -> None:
    if classes.dtype == torch.bool or classes.is_floating_point():
        raise ValueError(f"decode: classes are {classes.dtype}; they must be integers")
    if torch.compiler.is_compiling():
        return
    outside = (classes < 0) | (classes >= count)
    if bool(outside.any()):
        raise ValueError(f"decode: there is no class {int(classes[outside][0])} among {count}")


def lengths_of(capsules: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch"]:
    """‖v‖ of each capsule."""
    lengths: Tensor = torch.linalg.vector_norm(capsules, dim=-1)
    return lengths


def start_as_official(model: CapsNet) -> None:
    """Starting values of the authors' code: truncated normals, and biases of 0.1 throughout."""
    deviations: dict[nn.Module, float] = {model.primary.conv1: 0.05, model.primary.conv2: 0.1}
    if model.decoder is not None:
        deviations |= {layer: 0.1 for layer in model.decoder.layers if isinstance(layer, nn.Linear)}
    for layer, std in deviations.items():
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        assert layer.bias is not None
        nn.init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std)
        nn.init.constant_(layer.bias, 0.1)
    nn.init.trunc_normal_(model.classes.weight, std=0.1, a=-0.2, b=0.2)
