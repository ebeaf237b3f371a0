"""Inject non-finite values, or a jumping clock, into `capsnet train`."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

What = Literal["loss", "infinite loss", "gradients", "overflow", "weights", "moments"]


@dataclass(frozen=True)
class Trouble:
    """Inject a non-finite value in step `at`, counted from 1."""

    what: What
    at: int
    seen: Path

    def __call__(self) -> None:
        """Patch the training in this process."""
        from capsnet.models import CapsNet
        from capsnet.training.batches import BatchSchedule
        from capsnet.training.step import Stepper

        batches, loss, step = BatchSchedule.batches, CapsNet.loss, Stepper.step
        now = 0

        def counted(
            plan: BatchSchedule, first_step: int, device: torch.device
        ) -> Iterator[tuple[int, Any, Any]]:
            nonlocal now
            for number, indices, uniforms in batches(plan, first_step, device):
                now = number + 1
                yield number, indices, uniforms

        def spoiled_loss(model: CapsNet, batch: Any) -> dict[str, torch.Tensor]:
            losses = loss(model, batch)
            if now == self.at and model.training:
                self.seen.write_text(fingerprint(batch))
                spoil = {"loss": torch.nan, "infinite loss": torch.inf}.get(self.what)
                factor = {"gradients": torch.nan, "overflow": 1e36}.get(self.what)
                if spoil is not None:
                    losses["loss"] = losses["loss"] + spoil
                if factor is not None:
                    losses["loss"].register_hook(lambda gradient: gradient * factor)  # type: ignore[no-untyped-call]
            return losses

        def spoiled_step(stepper: Stepper, *arguments: Any) -> None:
            step(stepper, *arguments)
            if now != self.at:
                return
            weight = next(stepper.model.parameters())
            if self.what == "weights":
                weight.data.view(-1)[0] = torch.nan
            if self.what == "moments":
                stepper.optimizer.state[weight]["exp_avg"].view(-1)[0] = torch.nan

        for owner, name, spoiled in (
            (BatchSchedule, "batches", counted),
            (CapsNet, "loss", spoiled_loss),
            (Stepper, "step", spoiled_step),
        ):
            setattr(owner, name, spoiled)


def fingerprint(batch: Any) -> str:
    """Return the SHA-256 of a batch's images and labels."""
    digest = hashlib.sha256(batch.images.contiguous().numpy().tobytes())
    digest.update(batch.labels.contiguous().numpy().tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class WildClock:
    """Make the system clock jump by years, back or forth, at every call."""

    seed: int

    def __call__(self) -> None:
        """Replace the clock of this process."""
        chance = random.Random(self.seed)
        time.time = lambda: chance.uniform(0, 4e9)
        time.time_ns = lambda: chance.randrange(4 * 10**18)
