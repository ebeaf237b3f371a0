"""Define the three scales: width of the networks, training length and schedule."""

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
    """Hold the widths and the schedule of a scale."""

    stem_channels: int
    primary_types: int
    decoder: tuple[int, ...]
    baseline: float
    """Width of the paper's CNN baselines, as a share of the published width."""
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
    """Hold the number of training steps at each scale."""

    quick: int
    full: int
    quick_batch: int | None = None
    """Batch size at the quick scale; None: the same as at the other scales."""

    def at(self, scale: Scale) -> int:
        """Return the steps at a scale; a smoke run has two."""
        return {"smoke": 2, "quick": self.quick, "full": self.full}[scale]


#: Training of the experiments that look into networks trained on single digits.
DIGIT_STEPS = Steps(quick=2400, full=300_000, quick_batch=32)

#: Training of the longer recipes of the quick scale. On processors with bfloat16, a step takes two thirds of the time.
#: The average of the weights, over about a twentieth of the steps, errs less than the last weights.
LONGER: Mapping[str, Any] = {"precision": "bf16", "average": 0.05}

#: Deviation of these recipes. The page adds the precision itself.
AVERAGED = "a moving average of the weights over about a twentieth of the steps"

#: Deviations of the quick scale that most experiments share.
NARROW = (
    "32 of 256 stem channels and 8 of 32 capsule types; controls built from this CapsNet; decoder as published",
    "one-cycle learning rate over fewer steps than published",
)


def capsnet(scale: Scale, **changes: Any) -> CapsNetConfig:
    """Return the published CapsNet at the scale's width.

    `official=True` follows the authors' code where it differs from the paper's text.
    """
    size = SIZES[scale]
    build = CapsNetConfig.official if changes.pop("official", False) else CapsNetConfig
    widths = {
        "stem_channels": size.stem_channels,
        "primary_types": size.primary_types,
        "decoder": size.decoder,
    }
    return build(**{**widths, **changes})


def baseline(scale: Scale, image_shape: tuple[int, int, int] = (1, 28, 28)) -> CNNConfig:
    """Return the paper's CNN for single digits (35.4M parameters at the full scale)."""
    full = CNNConfig()
    return CNNConfig(
        image_shape,
        stages=_narrowed(full.stages, SIZES[scale].baseline),
        hidden=_widths(full.hidden, SIZES[scale].baseline),
    )


#: Deviation of the paper's own CNN at the quick scale.
NARROW_BASELINE = (
    "the paper's CNN with an eighth of its channels: smaller than this CapsNet, while the published one is larger than "
    "the published CapsNet (see the parameters)"
)


def overlapping_baseline(scale: Scale, image_shape: tuple[int, int, int]) -> CNNConfig:
    """Return the paper's CNN for overlapping digits (24.56M parameters, full scale)."""
    full, share = CNNConfig.overlapping_baseline(), SIZES[scale].baseline
    return CNNConfig.overlapping_baseline(
        image_shape=image_shape, stages=_narrowed(full.stages, share), hidden=_widths(full.hidden, share)
    )


def controls(
    like: CapsNetConfig, training: TrainConfig, output: Output = "softmax", **options: Any
) -> tuple[Variant, ...]:
    """Return the three control CNNs of a CapsNet, with the same training."""
    return tuple(
        Variant(
            name,
            about,
            replace(make(like, output), standardize=like.standardize),
            training,
            control=True,
            **options,
        )
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


def training(
    scale: Scale, data: str, steps: Steps, *, quick: Mapping[str, Any] | None = None, **changes: Any
) -> TrainConfig:
    """Return the training of a variant at a scale, without evaluations.

    Args:
        scale: the scale.
        data: name of the data set.
        steps: number of steps at each scale.
        quick: options of the quick scale only, for a short training.
        changes: other options, at every scale.
    """
    size = SIZES[scale]
    usual: dict[str, Any] = {
        "data": data,
        "steps": steps.at(scale),
        "batch_size": (steps.quick_batch if scale == "quick" else None) or size.batch_size,
        "schedule": size.schedule,
        "learning_rate": size.learning_rate,
        "evaluate_every": 0,
    }
    return TrainConfig(**{**usual, **changes, **((quick or {}) if scale == "quick" else {})})


def _narrowed(stages: tuple[Stage, ...], share: float) -> tuple[Stage, ...]:
    return tuple(replace(stage, channels=max(1, round(stage.channels * share))) for stage in stages)


def _widths(hidden: tuple[int, ...], share: float) -> tuple[int, ...]:
    # The share is of the weights of a layer: the product of two widths.
    return tuple(max(4, round(width * share**0.5)) for width in hidden)
