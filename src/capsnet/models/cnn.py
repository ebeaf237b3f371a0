"""The controls: plain convolutional networks, through the same training loop as CapsNet."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from capsnet._support.errors import CapsnetError
from capsnet._support.fields import settle
from capsnet._support.limits import check_sizes, check_totals
from capsnet.functional import at_least_float32
from capsnet.models.base import Classifier
from capsnet.models.capsnet import CapsNetConfig

if TYPE_CHECKING:
    from capsnet.data.dataset import Batch

Pool = Literal["max", "average"]
Output = Literal["softmax", "sigmoid"]


@dataclass(frozen=True)
class Stage:
    """A convolution, ReLU, and perhaps 2×2 pooling.

    Raises:
        CapsnetError: a size below 1; an even kernel or a stride where the size is to stay the same; a wrong type.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    channels: int
    kernel: int
    stride: int = 1
    same: bool = False
    """Pad so that the size stays as it is ("SAME"); else not at all ("VALID")."""
    pool: Pool | None = None

    def __post_init__(self) -> None:
        settle(self)
        check_sizes("Stage", {name: (getattr(self, name),) for name in ("channels", "kernel", "stride")}, {})
        if self.same and (self.kernel % 2 == 0 or self.stride > 1):
            raise CapsnetError(
                f"Stage: same padding takes an odd kernel and stride 1, not {self.kernel} and {self.stride}"
            )

    @property
    def padding(self) -> int:
        """Rows and columns of zeros on each side."""
        return self.kernel // 2 if self.same else 0

    def size(self, size: int) -> int:
        """Rows (or columns) that come out when `size` go in."""
        size = (size + 2 * self.padding - self.kernel) // self.stride + 1
        return size // 2 if self.pool else size


@dataclass(frozen=True)
class CNNConfig:
    """Everything that defines a control. The defaults are the paper's baseline for digits (35.4M parameters).

    Raises:
        CapsnetError: sizes that do not fit together; an image too small for the stages; a wrong type.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    image_shape: tuple[int, int, int] = (1, 28, 28)
    """(channels, height, width)."""
    classes: int = 10
    stages: tuple[Stage, ...] = (
        Stage(256, 5, same=True),
        Stage(256, 5, same=True),
        Stage(128, 5, same=True),
    )
    average_places: bool = False
    """Average each channel of the last stage over all places, instead of keeping the places apart."""
    hidden: tuple[int, ...] = (328, 192)
    """Widths of the fully connected layers before the last."""
    dropout: float = 0.5
    """Share of the last hidden layer's numbers left out in training. 0: none."""
    output: Output = "softmax"
    """"softmax": one class per image. "sigmoid": each class by itself, for several at once."""

    def __post_init__(self) -> None:
        settle(self)
        if not self.stages:
            raise CapsnetError("CNNConfig: stages is empty; a CNN needs at least one")
        layers = {"stages": len(self.stages), "hidden": len(self.hidden)}
        sizes = {"image_shape": self.image_shape, "classes": (self.classes,), "hidden": self.hidden}
        check_sizes("CNNConfig", sizes, layers)
        if self.classes < 2:
            raise CapsnetError(f"CNNConfig: classes is {self.classes}; a classifier needs at least 2")
        if not 0 <= self.dropout < 1:
            raise CapsnetError(f"CNNConfig: dropout is {self.dropout}; it must be at least 0 and below 1")
        if min(self.grid) < 1:
            raise CapsnetError(
                f"CNNConfig: a {self.image_shape[1]}×{self.image_shape[2]} image is too small for these stages; "
                "choose a larger one, smaller kernels or less pooling"
            )
        check_totals("CNNConfig", self.parameter_count(), self._largest_tensor())

    @classmethod
    def overlapping_baseline(cls, **changes: Any) -> Self:
        """The paper's control for two overlapping digits (24.56M parameters)."""
        preset: dict[str, Any] = {
            "image_shape": (1, 36, 36),
            "stages": (Stage(512, 9, same=True, pool="max"), Stage(256, 5, same=True, pool="max")),
            "hidden": (1024,),
            "output": "sigmoid",
        }
        return cls(**{**preset, **changes})

    @classmethod
    def max_pooling(cls, like: CapsNetConfig, output: Output = "softmax") -> Self:
        """A usual CNN of a CapsNet's size: its channels and kernels, but max pooling and a hidden layer.

        The hidden layer is as wide as brings the parameters nearest to the CapsNet's, decoder included.
        """
        stages = (
            Stage(like.stem_channels, like.stem_kernel, like.stem_stride, pool="max"),
            Stage(like.primary_types * like.primary_dim, like.primary_kernel | 1, same=True, pool="max"),
        )
        template = cls(like.image_shape, like.classes, stages, hidden=(1,), output=output)
        one, two = (replace(template, hidden=(width,)).parameter_count() for width in (1, 2))
        width = 1 + round((like.parameter_count() - one) / (two - one))
        return replace(template, hidden=(max(1, width),))

    @classmethod
    def average_pooling(cls, like: CapsNetConfig, output: Output = "softmax") -> Self:
        """A CapsNet's two convolutions, averaged over all places, and one linear layer.

        Large kernels and average pooling are known to close much of the affNIST gap (Gu, Tresp, Han 2021).
        """
        return cls(
            image_shape=like.image_shape,
            classes=like.classes,
            stages=_stem(like),
            average_places=True,
            hidden=(),
            dropout=0.0,
            output=output,
        )

    @classmethod
    def without_routing(cls, like: CapsNetConfig, output: Output = "softmax") -> Self:
        """A CapsNet's own two convolutions with fully connected layers in place of capsules and routing.

        The hidden layer has one unit for each number of the class capsules, so that it has exactly as many
        weights as the matrices W_ij.
        """
        return cls(
            image_shape=like.image_shape,
            classes=like.classes,
            stages=_stem(like),
            hidden=(like.classes * like.class_dim,),
            dropout=0.0,
            output=output,
        )

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns that the last stage puts out."""
        rows, columns = self.image_shape[1:]
        for stage in self.stages:
            rows, columns = stage.size(rows), stage.size(columns)
        return rows, columns

    @property
    def widths(self) -> tuple[int, ...]:
        """Sizes of the fully connected layers, from the stages' output to the classes."""
        places = 1 if self.average_places else prod(self.grid)
        return (self.stages[-1].channels * places, *self.hidden, self.classes)

    def parameter_count(self) -> int:
        """Trained numbers of the network, computed without building it."""
        channels = (self.image_shape[0], *(stage.channels for stage in self.stages))
        count = sum(
            stage.channels * (fan_in * stage.kernel**2 + 1)
            for fan_in, stage in zip(channels, self.stages, strict=False)
        )
        return count + sum((fan_in + 1) * fan_out for fan_in, fan_out in pairwise(self.widths))

    def _largest_tensor(self) -> int:
        rows, columns = self.image_shape[1:]
        largest = prod(self.image_shape)
        for stage in self.stages:
            before = replace(stage, pool=None)
            largest = max(largest, stage.channels * before.size(rows) * before.size(columns))
            rows, columns = stage.size(rows), stage.size(columns)
        return max(largest, *self.widths)


def _stem(like: CapsNetConfig) -> tuple[Stage, Stage]:
    return (
        Stage(like.stem_channels, like.stem_kernel, like.stem_stride),
        Stage(like.primary_types * like.primary_dim, like.primary_kernel, like.primary_stride),
    )


class CNN(Classifier):
    """Convolutions, fully connected layers, softmax or sigmoids.

    Args:
        config: sizes; the paper's baseline by default.

    Shape:
        images (batch, channels, height, width) → logits (batch, classes)

    >>> CNN(CNNConfig(stages=(Stage(4, 5, pool="max"),), hidden=(8,)))(torch.rand(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """

    architecture = "cnn"
    config_class = CNNConfig
    config: CNNConfig

    def __init__(self, config: CNNConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or CNNConfig()
        channels = (config.image_shape[0], *(stage.channels for stage in config.stages))
        self.stages = nn.ModuleList(
            _layers(fan_in, stage) for fan_in, stage in zip(channels, config.stages, strict=False)
        )
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(config.widths[:-1]))
        self.last = nn.Linear(config.widths[-2], config.widths[-1])
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        """Logits, in float32 or better."""
        logits: Tensor = self.last(self.dropout(self.features(images)))
        return at_least_float32(logits)

    def features(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch n"]:
        """The last hidden layer: what the last linear layer sees."""
        maps = self.feature_maps(images)[-1]
        values: Tensor = maps.mean(dim=(2, 3)) if self.config.average_places else maps.flatten(1)
        for layer in self.hidden:
            values = F.relu(layer(values))
        return values

    def feature_maps(self, images: Float[Tensor, "batch channels height width"]) -> list[Tensor]:
        """What each stage puts out, (batch, channels, rows, columns) each."""
        self.check_images(images)
        maps = [images]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return maps[1:]

    def scores(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        """Softmax or sigmoids of the logits."""
        logits = self(images)
        scores: Tensor = logits.softmax(dim=1) if self.config.output == "softmax" else logits.sigmoid()
        return scores

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Cross entropy; with sigmoids the sum of the classes' binary cross entropies. Mean over the batch; 0 for none.

        Raises:
            ValueError: several classes are present in each image, and the output is a softmax.
        """
        logits = self(batch.images)
        if self.config.output == "softmax" and batch.labels.shape[1] != 1:
            raise ValueError(f"loss: {batch.labels.shape[1]} classes in each image need output='sigmoid'")
        if not len(logits):  # as `margin_loss` has it
            loss = logits.sum()
        elif self.config.output == "sigmoid":
            targets = batch.targets(self.config.classes).to(logits)
            loss = F.binary_cross_entropy_with_logits(logits, targets, reduction="sum") / len(logits)
        else:
            loss = F.cross_entropy(logits, batch.labels[:, 0])
        return {"loss": loss}


def _layers(fan_in: int, stage: Stage) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(fan_in, stage.channels, stage.kernel, stage.stride, stage.padding),
        nn.ReLU(),
    ]
    if stage.pool:
        layers.append(nn.MaxPool2d(2) if stage.pool == "max" else nn.AvgPool2d(2))
    return nn.Sequential(*layers)
