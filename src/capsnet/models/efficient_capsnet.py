"""Efficient-CapsNet (Mazzia, Salvetti, Chiaberge 2021): a small network with self-attention routing, no iterations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from capsnet._support.errors import CapsnetError
from capsnet._support.validation import MAX_ITEMS, Size, Weight, Widths, configuration
from capsnet.distributed import has_fast_bf16
from capsnet.functional import RECONSTRUCTION_WEIGHT, at_least_float32
from capsnet.layers.capsule_layer import CapsuleLayer
from capsnet.layers.decoder import Decoder
from capsnet.models.authors import Arrays, same
from capsnet.models.capsule_classifier import CapsuleClassifier
from capsnet.models.config import ClassifierConfig
from capsnet.models.registry import register
from capsnet.routing import RoutingTrace
from capsnet.routing.self_attention import SelfAttention, squash_exponentially

if TYPE_CHECKING:
    from capsnet.data.dataset import Dataset

Sizes = Annotated[tuple[Size, ...], Field(min_length=1, max_length=MAX_ITEMS)]
#: From this height or width on, the stem of the authors' networks for larger images.
MEDIUM, LARGE = 32, 40


@configuration
class EfficientCapsNetConfig(ClassifierConfig):
    """Configuration of an Efficient-CapsNet and its loss.

    The defaults are the published network for MNIST (161,824 parameters). `for_dataset` picks the network for MNIST,
    MultiMNIST or smallNORB by the size of the images.

    Raises:
        CapsnetError: a value is wrong, the images are too small for the convolutions, or the network is too large.
    """

    channels: Sizes = (32, 64, 64, 128)
    """Channels of the convolutions. The last are divided into the primary capsules."""
    kernels: Sizes = (5, 3, 3, 3)
    strides: Sizes = (1, 1, 1, 2)
    normalization: Literal["batch", "instance"] = "batch"
    """After each activation: over the batch, or over each image's own places."""
    leak: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Slope of the activation below zero; 0: ReLU."""
    primary_dim: Size = 8
    class_dim: Size = 16
    decoder: Widths | None = None
    """Hidden widths of the decoder, (512, 1024) in the paper; None trains without reconstruction."""
    margin_weight: Weight = 1.0
    reconstruction_weight: Weight = RECONSTRUCTION_WEIGHT

    def __post_init__(self) -> None:
        if not len(self.channels) == len(self.kernels) == len(self.strides):
            raise CapsnetError(
                f"EfficientCapsNetConfig: {len(self.channels)} channels, {len(self.kernels)} kernels and "
                f"{len(self.strides)} strides; give one of each for every convolution"
            )
        if self.channels[-1] % self.primary_dim:
            raise CapsnetError(
                f"EfficientCapsNetConfig: the last convolution has {self.channels[-1]} channels, which cannot be "
                f"divided into capsules of dimension {self.primary_dim}"
            )
        if min(self.grid) < 1:
            raise CapsnetError(
                f"EfficientCapsNetConfig: a {self.image_shape[1]}×{self.image_shape[2]} image is too small for "
                f"convolutions with kernels {self.kernels} and strides {self.strides}; choose a larger one, or "
                "smaller kernels"
            )
        super().__post_init__()

    @classmethod
    def fields_for(cls, dataset: Dataset) -> dict[str, Any]:
        """Return the fields that a data set determines: the authors' stem for images of about this size."""
        return {**super().fields_for(dataset), **_stem(min(dataset.image_shape[1:]))}

    @classmethod
    def training_for(cls, dataset: Dataset) -> dict[str, Any]:
        """Return the training options that suit this architecture: 28 epochs with rotated, scaled, shifted images.

        With them a network reached 0.34 % on MNIST.
        """
        proposed: dict[str, Any] = {"epochs": 28, "learning_rate": 0.003, "average": 0.05}
        if dataset.image_shape[0] == 1:
            proposed |= {"rotation": 20.0, "scale": 0.2, "shift": 2, "settle": 0.1}
        if has_fast_bf16():
            proposed["precision"] = "bf16"
        return proposed

    def build(self, *, backend: str = "auto") -> EfficientCapsNet:
        """Return an untrained Efficient-CapsNet. Seed PyTorch first."""
        return EfficientCapsNet(self, backend=backend)

    @property
    def grid(self) -> tuple[int, int]:
        """Return rows and columns of the last convolution's output."""
        rows, columns = self.image_shape[1:]
        for kernel, stride in zip(self.kernels, self.strides, strict=True):
            rows, columns = ((side - kernel) // stride + 1 for side in (rows, columns))
        return rows, columns

    @property
    def in_caps(self) -> int:
        """Return the number of primary capsules."""
        return self.channels[-1] // self.primary_dim


class PrimaryCapsules(nn.Module):
    """Convolutions, and a kernel for each channel that is as large as its map: one number of a primary capsule."""

    def __init__(self, config: EfficientCapsNetConfig) -> None:
        super().__init__()
        self.leak, self.dim = config.leak, config.primary_dim
        fan_in = (config.image_shape[0], *config.channels[:-1])
        sizes = zip(fan_in, config.channels, config.kernels, config.strides, strict=True)
        self.convolutions = nn.ModuleList(nn.Conv2d(*size) for size in sizes)
        norm = nn.BatchNorm2d if config.normalization == "batch" else _instance_norm
        self.norms = nn.ModuleList(norm(channels, eps=1e-3) for channels in config.channels)
        self.weight = nn.Parameter(torch.empty(config.channels[-1], *config.grid))
        self.bias = nn.Parameter(torch.zeros(config.channels[-1]))
        for convolution in self.convolutions:
            assert isinstance(convolution, nn.Conv2d)
            nn.init.kaiming_normal_(convolution.weight, a=config.leak)
            assert convolution.bias is not None
            nn.init.zeros_(convolution.bias)
        bound = prod(config.grid) ** -0.5
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch in_caps dim"]:
        """Compute the primary capsules u of a batch of images, each of length below 1."""
        return squash_exponentially(self.properties(self.maps(images)[-1]))

    def maps(self, images: Float[Tensor, "batch channels height width"]) -> list[Tensor]:
        """Return the output of each convolution after its activation and normalisation."""
        maps = [images]
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = convolution(maps[-1])
            maps.append(norm(F.leaky_relu(x, self.leak) if self.leak else F.relu(x)))
        return maps[1:]

    def properties(
        self, maps: Float[Tensor, "batch channels rows columns"]
    ) -> Float[Tensor, "batch in_caps dim"]:
        """Return the primary capsules before squash: a depthwise convolution with one place, as a dot product."""
        # In this order of axes, since the maps are channels-last in memory.
        s = (maps.flatten(2).transpose(1, 2) * self.weight.flatten(1).T).sum(1) + self.bias
        return at_least_float32(s).unflatten(1, (-1, self.dim))  # type: ignore[no-untyped-call,no-any-return]


def _instance_norm(channels: int, eps: float) -> nn.InstanceNorm2d:
    return nn.InstanceNorm2d(channels, eps, affine=True)


@register("efficient-capsnet")
class EfficientCapsNet(CapsuleClassifier):
    """Efficient-CapsNet: image → convolutions → primary capsules → self-attention routing → class capsules.

    Args:
        config: sizes; the published network for MNIST by default.
        backend: routing backend, see `capsnet.routing.agree`.

    Shape:
        images in [0, 1] (batch, channels, height, width) → class capsules (batch, classes, class_dim)

    >>> model = EfficientCapsNet()
    >>> model(torch.rand(2, 1, 28, 28)).shape, model.parameter_count()
    (torch.Size([2, 10, 16]), 161824)
    """

    config_class = EfficientCapsNetConfig
    config: EfficientCapsNetConfig

    def __init__(self, config: EfficientCapsNetConfig | None = None, *, backend: str = "auto") -> None:
        super().__init__()
        self.config = config = config or EfficientCapsNetConfig()
        classes, dim = config.num_classes, config.class_dim
        self.primary = PrimaryCapsules(config)
        self.class_capsules = CapsuleLayer(
            config.in_caps,
            config.primary_dim,
            classes,
            dim,
            routing=SelfAttention(backend),
            init_std=(2 / (classes * config.in_caps * config.primary_dim)) ** 0.5,  # the authors' He normal
        )
        self.decoder = (
            None if config.decoder is None else Decoder(classes, dim, config.decoder, config.image_shape)
        )
        self.primary.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch num_classes class_dim"]:
        """Return the class capsules v; their lengths say which classes are present."""
        capsules: Tensor = self.class_capsules(self.primary(self.prepare(images)))
        return capsules

    @torch.no_grad()
    def class_routing(
        self, images: Float[Tensor, "batch channels height width"], iterations: int | None = None
    ) -> RoutingTrace:
        """Return the routing to the class capsules: one pass, whatever `iterations` says."""
        return self.class_capsules.trace(self.primary(self.prepare(images)), iterations)

    @classmethod
    def from_authors(cls, arrays: Mapping[str, Any], *, image_size: int | None = None) -> Self:
        """Build a model from the weights of the authors' Keras network, in evaluation mode.

        Sizes are read from the arrays, and the strides are those of the authors' networks. A generator is left out. The
        model takes images prepared as in the authors' program; for smallNORB these are not in [0, 1].

        Args:
            arrays: "conv2d.kernel", "digit_caps.W", … → arrays; names may begin with "CapsNet.".
            image_size: height and width of the images; by default the smallest multiple of 4 that fits.

        Raises:
            CapsnetError: an array is missing or has another shape.
        """
        a = Arrays(arrays, "CapsNet.")
        *convolutions, depthwise = (
            name.removesuffix(".kernel") for name in a.numbered(r"conv2d(?:_(\d+))?\.kernel") or [".kernel"]
        )
        is_norb = bool(a.numbered(r"instance_normalization(?:_(\d+))?\.gamma"))
        kind = "instance_normalization" if is_norb else "batch_normalization"
        norms = [name.removesuffix(".gamma") for name in a.numbered(rf"{kind}(?:_(\d+))?\.gamma")]
        kernels = [a.take(f"{name}.kernel", 4) for name in convolutions]
        matrices, last = a.take("digit_caps.W", 4), a.take(f"{depthwise}.kernel", 4)
        if not kernels or len(norms) != len(kernels):
            raise CapsnetError(
                f"from_authors: the arrays have {len(kernels)} convolutions and {len(norms)} normalisations"
            )
        stem = _stem(LARGE if is_norb else MEDIUM if last.shape[0] < 9 else 0)
        least = last.shape[0]
        sizes = tuple(kernel.shape[0] for kernel in kernels)
        for kernel, stride in zip(reversed(sizes), reversed(stem["strides"]), strict=False):
            least = (least - 1) * stride + kernel
        side = image_size or -(-least // 4) * 4
        model = cls(
            EfficientCapsNetConfig(
                image_shape=(kernels[0].shape[2], side, side),
                num_classes=matrices.shape[0],
                channels=tuple(kernel.shape[3] for kernel in kernels),
                primary_dim=matrices.shape[2],
                class_dim=matrices.shape[3],
                **{**stem, "kernels": sizes},
            )
        )
        table: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
            "primary.weight": (f"{depthwise}.kernel", lambda x: x.permute(3, 2, 0, 1)[:, 0]),
            "primary.bias": (f"{depthwise}.bias", same),
            "class_capsules.weight": ("digit_caps.W", lambda x: x.permute(1, 2, 0, 3)),
            "class_capsules.routing.prior": ("digit_caps.b", lambda x: x[..., 0].T),
        }
        parts = {"weight": "gamma", "bias": "beta"}
        if not is_norb:
            parts |= {"running_mean": "moving_mean", "running_var": "moving_variance"}
        for number, (convolution, norm) in enumerate(zip(convolutions, norms, strict=True)):
            own = f"primary.convolutions.{number}"
            table[f"{own}.weight"] = (f"{convolution}.kernel", lambda x: x.permute(3, 2, 0, 1))
            table[f"{own}.bias"] = (f"{convolution}.bias", same)
            table |= {
                f"primary.norms.{number}.{part}": (f"{norm}.{name}", same) for part, name in parts.items()
            }
        a.fill(model, table)
        return model.eval()


def _stem(side: int) -> dict[str, Any]:
    """Return the fields of the authors' network for images of about this size."""
    if side >= LARGE:  # smallNORB
        return {"kernels": (7, 3, 3, 3), "strides": (2, 1, 1, 2), "normalization": "instance", "leak": 0.3}
    return {"strides": (1, 1, 2, 2) if side >= MEDIUM else (1, 1, 1, 2)}  # MultiMNIST or MNIST
