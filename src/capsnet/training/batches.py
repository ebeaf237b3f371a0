"""Which examples, with which chance, in which step: known before the first.

All chance is drawn ahead, per epoch, from (seed, epoch): the order of the examples and the numbers their
augmentation takes. So a step depends only on the state and its own number, however the batch is split over
processes; a resumed run repeats what the uninterrupted one would have done, and any batch can be had again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from capsnet.data.augmentation import Shift
from capsnet.data.dataset import Batch, Examples, Source
from capsnet.training.config import TrainConfig


@dataclass(frozen=True)
class Plan:
    """How many steps, and which examples with which chance in each."""

    seed: int
    examples: int
    draws: int
    batch_size: int
    steps: int

    @classmethod
    def of(cls, config: TrainConfig, source: Source) -> Self:
        """The plan of a training: whole batches only; a data set smaller than a batch is one batch."""
        batch_size = min(config.batch_size, len(source))
        steps = config.steps or config.epochs * (len(source) // batch_size)
        return cls(config.seed, len(source), source.draws, batch_size, steps)

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in an epoch."""
        return self.examples // self.batch_size

    def epoch_of(self, step: int) -> int:
        """The epoch, from 0, of the step with this number, from 0."""
        return step // self.steps_per_epoch

    def epoch_seed(self, epoch: int) -> int:
        """What all chance of one epoch is drawn from."""
        return self.seed * 1_000_003 + epoch

    def epoch(self, epoch: int) -> tuple[Tensor, Tensor]:
        """Order of the examples (examples,) and their uniform numbers (examples, draws) in one epoch."""
        generator = torch.Generator().manual_seed(self.epoch_seed(epoch))
        order = torch.randperm(self.examples, generator=generator)
        return order, torch.rand(self.examples, self.draws, generator=generator)

    def batches(self, first_step: int, device: torch.device) -> Iterator[tuple[int, Tensor, Tensor]]:
        """(step, indices, uniforms) of every step from `first_step` on."""
        epoch, order, uniforms = -1, torch.empty(0), torch.empty(0)
        for step in range(first_step, self.steps):
            if self.epoch_of(step) != epoch:
                epoch = self.epoch_of(step)
                order, uniforms = (drawn.to(device) for drawn in self.epoch(epoch))
            start = step % self.steps_per_epoch * self.batch_size
            rows = slice(start, start + self.batch_size)
            yield step, order[rows], uniforms[rows]

    def batch(self, source: Source, step: int) -> Batch:
        """What the training saw in the step with this number, counted from 1 as in the run's files.

        Args:
            source: the training examples, `augmented`.
            step: 1 … steps.
        """
        _, indices, uniforms = next(self.batches(step - 1, torch.device("cpu")))
        return source.batch(indices, uniforms)


def augmented(source: Source, config: TrainConfig) -> Source:
    """The paper's shifts for plain images; a source that augments in its own way is left as it is."""
    if isinstance(source, Examples) and source.augment is None and config.shift:
        return replace(source, augment=Shift(config.shift))
    return source
