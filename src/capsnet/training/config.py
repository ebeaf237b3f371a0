"""How a model is trained, as a value: what config.json records and a resumed run reads back."""

from __future__ import annotations

from math import cos, pi
from typing import Annotated, Literal

from pydantic import Field

from capsnet._support.errors import CapsnetError
from capsnet._support.validation import configuration

Schedule = Literal["one-cycle", "paper", "constant"]
Precision = Literal["fp32", "bf16"]
OnNonfinite = Literal["stop", "skip"]


@configuration
class TrainConfig:
    """Training options. With the data and the model's own configuration they determine a run.

    Raises:
        CapsnetError: a wrong type, or a value out of bounds.
    """

    data: str = "mnist5k"
    image_size: Annotated[int, Field(ge=2, le=8000)] | None = None
    """Height and width that a folder's images are resized to; None: the first image's."""
    epochs: Annotated[int, Field(ge=1, le=10**9)] = 10
    steps: Annotated[int, Field(ge=1, le=10**12)] | None = None
    """Stop after this many steps instead of after `epochs`."""
    batch_size: Annotated[int, Field(ge=1, le=10**9)] = 128
    """Examples per step, over all processes."""
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.001
    schedule: Schedule = "one-cycle"
    """"paper": × 0.96 every 2,000 steps, never below 1e-6. "one-cycle": up to the rate and down to zero."""
    shift: Annotated[int, Field(ge=0, le=1000)] = 2
    """Random shifts of up to this many pixels each way."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    precision: Precision = "fp32"
    evaluate_every: Annotated[int, Field(ge=0, le=10**9)] = 1
    """Epochs between test-set evaluations on the way (for the curve only; nothing is chosen by it). 0: none."""
    save_seconds: Annotated[float, Field(ge=0, le=10**9)] = 60.0
    """Time between checkpoints, which are written when metrics are. 0: each time."""
    on_nonfinite: OnNonfinite = "stop"
    """Policy for steps with a non-finite loss or gradient: "stop" ends the training, "skip" leaves that step out.
    The weights are never updated by such a step."""
    deterministic: bool = False
    """Refuse operations that may give other bits in every run; slower on a GPU. A CPU is always deterministic."""

    def __post_init__(self) -> None:
        try:
            self.data.encode()
        except UnicodeEncodeError as error:  # config.json could not hold it
            raise CapsnetError("data: the folder's name is not valid UTF-8; rename it") from error


def learning_rate(config: TrainConfig, step: int, steps: int) -> float:
    """Learning rate of step 0 ≤ step < steps.

    "paper" is the authors' code: 0.001 · 0.96^(step/2000), at least 1e-6. "one-cycle" (Smith 2018) rises
    over the first 30 % from 1/25 of the peak and falls to 1/10,000 of that, both along a cosine.
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
    return end + (begin - end) * ((1 + cos(pi * min(1.0, position))) / 2)  # halved first: no overflow
