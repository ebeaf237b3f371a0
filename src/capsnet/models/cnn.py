"""The controls: plain convolutional networks, trained by the same loop as CapsNet."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from capsnet._support.errors import CapsnetError
from capsnet._support.validation import MAX_ITEMS, Size, Widths, configuration
from capsnet.functional import at_least_float32
from capsnet.models.base import Classifier
from capsnet.models.capsnet import CapsNetConfig
from capsnet.models.config import ClassifierConfig
from capsnet.models.registry import register

if TYPE_CHECKING:
    from capsnet.data.dataset import Batch, Dataset

Pool = Literal["max", "average"]
Output = Literal["softmax", "sigmoid"]


@configuration
class Stage:
    """A convolution, ReLU, and perhaps 2×2 pooling.

    Raises:
        CapsnetError: a value is wrong, or `same` is set with an even kernel or a stride.
    """

    channels: Size
    kernel: Size
    stride: Size = 1
    same: bool = False
    """Pad so that the size does not change ("SAME"); else do not pad ("VALID")."""
    pool: Pool | None = None

    def __post_init__(self) -> None:
        if self.same and (self.kernel % 2 == 0 or self.stride > 1):
            raise CapsnetError(
                f"Stage: same padding takes an odd kernel and stride 1, not {self.kernel} and {self.stride}"
            )

    @property
    def padding(self) -> int:
        """Return the rows and columns of zeros on each side."""
        return self.kernel // 2 if self.same else 0

    def size(self, size: int) -> int:
        """Return the output's rows (or columns) for `size` rows (or columns) of input."""
        size = (size + 2 * self.padding - self.kernel) // self.stride + 1
        return size // 2 if self.pool else size


@configuration
class CNNConfig(ClassifierConfig):
    """Configuration of a control.

    The defaults are the paper's baseline for digits (35.4M parameters).

    Raises:
        CapsnetError: a value is wrong, the images are too small for the stages, or the network is too large.
    """

    stages: Annotated[tuple[Stage, ...], Field(min_length=1, max_length=MAX_ITEMS)] = (
        Stage(256, 5, same=True),
        Stage(256, 5, same=True),
        Stage(128, 5, same=True),
    )
    average_places: bool = False
    """Average each channel of the last stage over all places (global average pooling)."""
    hidden: Widths = (328, 192)
    """Widths of the fully connected layers before the last."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Dropout probability after the last hidden layer. 0: no dropout."""
    output: Output = "softmax"
    """"softmax": one class per image. "sigmoid": classes are independent, for images with several classes."""

    def __post_init__(self) -> None:
        if min(self.grid) < 1:
            raise CapsnetError(
                f"CNNConfig: a {self.image_shape[1]}×{self.image_shape[2]} image is too small for these stages; "
                "choose a larger one, smaller kernels or less pooling"
            )
        super().__post_init__()

    @classmethod
    def fields_for(cls, dataset: Dataset) -> dict[str, Any]:
        """Return the fields that a data set determines.

        The output is "sigmoid" if an image shows several classes.
        """
        output: Output = "softmax" if dataset.classes_present == 1 else "sigmoid"
        return {**super().fields_for(dataset), "output": output}

    def build(self) -> CNN:
        """Return an untrained CNN. Seed PyTorch first."""
        return CNN(self)

    @classmethod
    def overlapping_baseline(cls, **changes: Any) -> Self:
        """Return the paper's control for two overlapping digits (24.56M parameters)."""
        preset: dict[str, Any] = {
            "image_shape": (1, 36, 36),
            "stages": (Stage(512, 9, same=True, pool="max"), Stage(256, 5, same=True, pool="max")),
            "hidden": (1024,),
            "output": "sigmoid",
        }
        return cls(**{**preset, **changes})

    @classmethod
    def max_pooling(cls, like: CapsNetConfig, output: Output = "softmax") -> Self:
        """Return a standard CNN with as many parameters as a CapsNet.

        It has the CapsNet's channels and kernels, but max pooling and a hidden layer. The width of the hidden layer is
        chosen so that the number of parameters is nearest to the CapsNet's, decoder included.
        """
        stages = (
            Stage(like.stem_channels, like.stem_kernel, like.stem_stride, pool="max"),
            Stage(like.primary_types * like.primary_dim, like.primary_kernel | 1, same=True, pool="max"),
        )
        template = cls(
            image_shape=like.image_shape,
            num_classes=like.num_classes,
            stages=stages,
            hidden=(1,),
            output=output,
        )
        one, two = (replace(template, hidden=(width,)).parameter_count() for width in (1, 2))
        width = 1 + round((like.parameter_count() - one) / (two - one))
        return replace(template, hidden=(max(1, width),))

    @classmethod
    def average_pooling(cls, like: CapsNetConfig, output: Output = "softmax") -> Self:
        """Return a CapsNet's two convolutions with average pooling and one linear layer.

        Large kernels and average pooling are known to close much of the affNIST gap (Gu, Tresp, Han 2021).
        """
        return cls(
            image_shape=like.image_shape,
            num_classes=like.num_classes,
            stages=_stem(like),
            average_places=True,
            hidden=(),
            dropout=0.0,
            output=output,
        )

    @classmethod
    def without_routing(cls, like: CapsNetConfig, output: Output = "softmax") -> Self:
        """Return a CapsNet's two convolutions with a fully connected head.

        The head replaces capsules and routing. Its hidden layer has one unit for each number of the class capsules, so
        it has exactly as many weights as the matrices W_ij.
        """
        return cls(
            image_shape=like.image_shape,
            num_classes=like.num_classes,
            stages=_stem(like),
            hidden=(like.num_classes * like.class_dim,),
            dropout=0.0,
            output=output,
        )

    @property
    def grid(self) -> tuple[int, int]:
        """Return rows and columns of the last stage's output."""
        rows, columns = self.image_shape[1:]
        for stage in self.stages:
            rows, columns = stage.size(rows), stage.size(columns)
        return rows, columns

    @property
    def widths(self) -> tuple[int, ...]:
        """Return the sizes of the fully connected layers, from stages to classes."""
        places = 1 if self.average_places else prod(self.grid)
        return (self.stages[-1].channels * places, *self.hidden, self.num_classes)


def _stem(like: CapsNetConfig) -> tuple[Stage, Stage]:
    return (
        Stage(like.stem_channels, like.stem_kernel, like.stem_stride),
        Stage(like.primary_types * like.primary_dim, like.primary_kernel, like.primary_stride),
    )


@register("cnn")
class CNN(Classifier):
    """Convolutions, fully connected layers, softmax or sigmoids.

    Args:
        config: sizes; the paper's baseline by default.

    Shape:
        images (batch, channels, height, width) → logits (batch, classes)

    >>> CNN(CNNConfig(stages=(Stage(4, 5, pool="max"),), hidden=(8,)))(torch.rand(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """

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

    def forward(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch num_classes"]:
        """Return the logits, in float32 or float64."""
        logits: Tensor = self.last(self.dropout(self.features(images)))
        return at_least_float32(logits)

    def features(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch n"]:
        """Return the input of the last linear layer."""
        maps = self.feature_maps(images)[-1]
        values: Tensor = maps.mean(dim=(2, 3)) if self.config.average_places else maps.flatten(1)
        for layer in self.hidden:
            values = F.relu(layer(values))
        return values

    def feature_maps(self, images: Float[Tensor, "batch channels height width"]) -> list[Tensor]:
        """Return the output of each stage, (batch, channels, rows, columns)."""
        maps = [self.prepare(images)]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return maps[1:]

    def scores(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch num_classes"]:
        """Return the softmax or the sigmoids of the logits."""
        logits = self(images)
        scores: Tensor = logits.softmax(dim=1) if self.config.output == "softmax" else logits.sigmoid()
        return scores

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the cross entropy, averaged over the batch; 0 for an empty batch.

        With sigmoids, it is the sum of the binary cross entropies of all classes.

        Raises:
            ValueError: each image has several classes, and the output is a softmax.
        """
        logits = self(batch.images)
        if self.config.output == "softmax" and batch.labels.shape[1] != 1:
            raise ValueError(f"loss: {batch.labels.shape[1]} classes in each image need output='sigmoid'")
        if not len(logits):  # as `margin_loss` has it
            loss = logits.sum()
        elif self.config.output == "sigmoid":
            targets = batch.targets(self.config.num_classes).to(logits)
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
