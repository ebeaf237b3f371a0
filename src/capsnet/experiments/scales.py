"""The three scales: how wide the networks are, how long they train, and by which schedule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from capsnet.experiments.recipe import Scale, Variant
from capsnet.models import CapsNetConfig, CNNConfig
from capsnet.models.cnn import Output, Stage
from capsnet.training.config import Schedule, TrainConfig


@dataclass(frozen=True)
class Size:
    """Widths and schedule of a scale."""

    stem_channels: int
    primary_types: int
    decoder: tuple[int, ...]
    baseline: float
    """Width of the paper's CNN baselines, as a share of the published."""
    batch_size: int
    schedule: Schedule
    learning_rate: float


SIZES: Mapping[Scale, Size] = {
    "smoke": Size(4, 2, (16,), 1 / 64, 32, "one-cycle", 0.001),
    "quick": Size(32, 8, (512, 1024), 1 / 8, 128, "one-cycle", 0.003),
    "full": Size(256, 32, (512, 1024), 1.0, 128, "paper", 0.001),
}


@dataclass(frozen=True)
class Steps:
    """Training steps at each scale."""

    quick: int
    full: int
    quick_batch: int | None = None
    """Examples per step at the quick scale; None: as many as at the others."""

    def at(self, scale: Scale) -> int:
        """Steps at a scale; two are enough to see that it runs."""
        return {"smoke": 2, "quick": self.quick, "full": self.full}[scale]


#: What is narrower at the quick scale, as every experiment's table says.
NARROW = (
    "32 of 256 stem channels and 8 of 32 capsule types; controls made from this CapsNet, the decoder as published",
    "one-cycle learning rate (peak 0.003) over fewer steps than published",
)


def capsnet(scale: Scale, **changes: Any) -> CapsNetConfig:
    """The published CapsNet, narrowed as the scale says. `official=True` is the authors' code's reading."""
    size = SIZES[scale]
    build = CapsNetConfig.official if changes.pop("official", False) else CapsNetConfig
    widths = {
        "stem_channels": size.stem_channels,
        "primary_types": size.primary_types,
        "decoder": size.decoder,
    }
    return build(**{**widths, **changes})


def baseline(scale: Scale, image_shape: tuple[int, int, int] = (1, 28, 28)) -> CNNConfig:
    """The paper's CNN for single digits (35.4M parameters when full)."""
    full = CNNConfig()
    return CNNConfig(
        image_shape,
        stages=_narrowed(full.stages, SIZES[scale].baseline),
        hidden=_widths(full.hidden, SIZES[scale].baseline),
    )


#: What became of the paper's own CNN, where it takes part.
NARROW_BASELINE = (
    "the paper's CNN at an eighth of its channels, so smaller than this CapsNet and not larger as published: see the "
    "parameters"
)


def overlapping_baseline(scale: Scale, image_shape: tuple[int, int, int]) -> CNNConfig:
    """The paper's CNN for two overlapping digits (24.56M parameters when full)."""
    full, share = CNNConfig.overlapping_baseline(), SIZES[scale].baseline
    return CNNConfig.overlapping_baseline(
        image_shape=image_shape, stages=_narrowed(full.stages, share), hidden=_widths(full.hidden, share)
    )


def controls(
    like: CapsNetConfig, training: TrainConfig, output: Output = "softmax", **options: Any
) -> tuple[Variant, ...]:
    """The three CNNs that accompany every CapsNet: same data, steps, batch and learning rate."""
    return tuple(
        Variant(name, about, make(like, output), training, control=True, **options)
        for name, about, make in (
            (
                "cnn-same-stem",
                "CapsNet's own stem, a fully connected head with as many weights as W: routing removed",
                CNNConfig.without_routing,
            ),
            ("cnn-max-pool", "max pooling, CapsNet's kernels and parameter count", CNNConfig.max_pooling),
            (
                "cnn-average-pool",
                "CapsNet's convolutions, averaged over all places",
                CNNConfig.average_pooling,
            ),
        )
    )


def training(scale: Scale, data: str, steps: Steps, **changes: Any) -> TrainConfig:
    """How a variant is trained at a scale; nothing is evaluated on the way."""
    size = SIZES[scale]
    usual: dict[str, Any] = {
        "data": data,
        "steps": steps.at(scale),
        "batch_size": (steps.quick_batch if scale == "quick" else None) or size.batch_size,
        "schedule": size.schedule,
        "learning_rate": size.learning_rate,
        "evaluate_every": 0,
    }
    return TrainConfig(**{**usual, **changes})


def _narrowed(stages: tuple[Stage, ...], share: float) -> tuple[Stage, ...]:
    return tuple(replace(stage, channels=max(1, round(stage.channels * share))) for stage in stages)


def _widths(hidden: tuple[int, ...], share: float) -> tuple[int, ...]:
    # A share of the layers' weights, which are the product of two widths.
    return tuple(max(4, round(width * share**0.5)) for width in hidden)
