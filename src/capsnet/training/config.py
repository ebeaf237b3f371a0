"""How a model is trained, as a value: what config.json records and a resumed run reads back."""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, isfinite, pi
from typing import Any, ClassVar, Literal

from capsnet._support.errors import CapsnetError
from capsnet._support.fields import settle

Schedule = Literal["one-cycle", "paper", "constant"]
Precision = Literal["fp32", "bf16"]
OnNonfinite = Literal["stop", "skip"]
#: Beyond these a number overflows, or a step never ends.
AT_MOST = {
    "image_size": 8000,
    "epochs": 10**9,
    "steps": 10**12,
    "batch_size": 10**9,
    "shift": 1000,
    "evaluate_every": 10**9,
    "save_seconds": 10**9,
}


@dataclass(frozen=True)
class TrainConfig:
    """Training options. With `data`, `seed` and the model's own configuration they determine a run.

    Raises:
        CapsnetError: a value that makes no sense, or is of another type.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    data: str = "mnist5k"
    image_size: int | None = None
    """Height and width that a folder's images are resized to; None: the first image's."""
    epochs: int = 10
    steps: int | None = None
    """Stop after this many steps instead of after `epochs`."""
    batch_size: int = 128
    """Examples per step, over all processes."""
    learning_rate: float = 0.001
    schedule: Schedule = "one-cycle"
    """"paper": × 0.96 every 2,000 steps, never below 1e-6. "one-cycle": up to the rate and down to zero."""
    shift: int = 2
    """Random shifts of up to this many pixels each way."""
    seed: int = 0
    precision: Precision = "fp32"
    evaluate_every: int = 1
    """Epochs between test-set evaluations on the way (for the curve only; nothing is chosen by it). 0: none."""
    save_seconds: float = 60.0
    """Time between saves of the resumable state, which happen when metrics are written. 0: each time."""
    on_nonfinite: OnNonfinite = "stop"
    """What to do about a step whose loss or gradients are NaN or infinite: "stop" ends the training, "skip" leaves
    that step out. Either way the weights are never touched by it."""
    deterministic: bool = False
    """Refuse operations that may give other bits in every run; on a GPU slower. A CPU needs no telling."""

    def __post_init__(self) -> None:
        settle(self)
        at_least = {
            "epochs": 1,
            "batch_size": 1,
            "shift": 0,
            "seed": 0,
            "evaluate_every": 0,
            "save_seconds": 0,
        }
        for name, least in at_least.items():
            if not getattr(self, name) >= least:
                raise CapsnetError(f"{name} is {getattr(self, name)}; it must be at least {least}")
        if self.seed >= 2**32:
            raise CapsnetError("seed is too large; it must be less than 2**32")
        if self.steps is not None and self.steps < 1:
            raise CapsnetError(f"steps is {self.steps}; it must be at least 1")
        for name, most in AT_MOST.items():
            if (value := getattr(self, name)) is not None and value > most:
                raise CapsnetError(f"{name} is too large; it must be at most {most:,}")
        if self.image_size is not None and self.image_size < 2:
            raise CapsnetError(f"image_size is {self.image_size}; it must be at least 2")
        try:
            self.data.encode()
        except UnicodeEncodeError as error:  # config.json could not say where the data are
            raise CapsnetError("data: the folder's name is no UTF-8; rename it") from error
        if not (isfinite(self.learning_rate) and self.learning_rate > 0):
            raise CapsnetError(f"learning_rate is {self.learning_rate}; it must be positive and finite")


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
