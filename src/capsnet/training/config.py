"""Training options, as recorded in config.json and read back to resume a run."""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, pi
from typing import Annotated, Literal

from pydantic import Field

from capsnet._support.errors import CapsnetError
from capsnet._support.validation import configuration

Schedule = Literal["one-cycle", "paper", "constant"]
Precision = Literal["fp32", "bf16"]
OnNonfinite = Literal["stop", "skip"]
ClassWeight = Annotated[float, Field(ge=0, allow_inf_nan=False)]

#: Usual length of training: at least this many epochs and steps.
USUAL_EPOCHS, LEAST_STEPS = 10, 500


def usual_epochs(steps_per_epoch: int) -> int:
    """Return the usual number of epochs: more for a small data set, whose epoch may be one step."""
    return max(USUAL_EPOCHS, -(-LEAST_STEPS // steps_per_epoch))


@configuration
class TrainConfig:
    """Training options. With the data and the model's configuration they define a run.

    Raises:
        CapsnetError: a wrong type, or a value out of bounds.
    """

    data: str = "mnist5k"
    image_size: Annotated[int, Field(ge=2, le=8000)] | None = None
    """Height and width that a folder's images are resized to; None: the size of the first image."""
    epochs: Annotated[int, Field(ge=1, le=10**9)] = 10
    steps: Annotated[int, Field(ge=1, le=10**12)] | None = None
    """Stop after this many steps instead of after `epochs`."""
    batch_size: Annotated[int, Field(ge=1, le=10**9)] = 128
    """Examples per step, over all processes."""
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.001
    schedule: Schedule = "one-cycle"
    """"paper": × 0.96 every 2,000 steps, never below 1e-6. "one-cycle": up to the rate, then down to almost 0."""
    shift: Annotated[int, Field(ge=0, le=1000)] = 2
    """Shift images at random by up to this many pixels in each direction."""
    rotation: Annotated[float, Field(ge=0, le=180)] = 0.0
    """Rotate images at random by up to this many degrees in each direction."""
    scale: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Scale images at random, height and width each by up to this share: 0.1 is × 0.9 to × 1.1."""
    settle: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Share of the steps, at the end, whose images are not augmented: turned and scaled images are blurred, and batch
    statistics and weights should fit images as they are."""
    average: Annotated[float, Field(ge=0, le=0.2)] = 0.0
    """The run's model is a moving average of the weights over about this share of all steps; 0: the last step's."""
    class_weights: Literal["balanced"] | tuple[ClassWeight, ...] | None = None
    """Weight of each class's images: how often they are trained on. "balanced": all classes equally often."""
    hold_out: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Share of each class's training images that are not trained on; they calibrate the probabilities."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    precision: Precision = "fp32"
    evaluate_every: Annotated[int, Field(ge=0, le=10**9)] = 1
    """Epochs between evaluations on the test set during training (only for the learning curve). 0: none."""
    save_seconds: Annotated[float, Field(ge=0, le=10**9)] = 60.0
    """Seconds between checkpoints. A checkpoint is only written together with metrics. 0: with all of them."""
    on_nonfinite: OnNonfinite = "stop"
    """Policy for steps with a non-finite loss or gradient: "stop" ends the training, "skip" skips the step.
    Such a step never updates the weights."""
    deterministic: bool = False
    """Use only deterministic operations; slower on a GPU. A CPU is always deterministic."""

    def __post_init__(self) -> None:
        try:
            self.data.encode()
        except UnicodeEncodeError as error:  # config.json could not hold it
            raise CapsnetError("data: the folder's name is not valid UTF-8; rename it") from error


@dataclass(frozen=True)
class Stop:
    """Stop training when the error on the data set's own test set is at most `error`.

    Models can then be compared at equal accuracy on the data that they were trained for.
    """

    error: float
    every: int = 50
    """Steps between evaluations."""


def learning_rate(config: TrainConfig, step: int, steps: int) -> float:
    """Return the learning rate of a step, 0 ≤ step < steps.

    "paper" is the authors' code: 0.001 · 0.96^(step/2000), at least 1e-6. "one-cycle" (Smith 2018) rises in the first
    30 % of the steps from 1/25 of the peak to the peak. Then it falls to 1/10,000 of the start. Both follow a cosine.
    """
    peak = config.learning_rate
    if config.schedule == "constant":
        return peak
    if config.schedule == "paper":
        decayed: float = peak * 0.96 ** (step / 2000)
        return max(1e-6, decayed)
    rise = 0.3 * steps
    start, end = peak / 25, peak / 25 / 10_000
    if step < rise:
        return _cosine(start, peak, step / rise)
    return _cosine(peak, end, (step - rise) / max(1.0, steps - 1 - rise))


def _cosine(begin: float, end: float, position: float) -> float:
    return end + (begin - end) * ((1 + cos(pi * min(1.0, position))) / 2)  # halved first, against overflow
