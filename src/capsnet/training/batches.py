"""The batch schedule: examples and random numbers of every step, fixed in advance.

The order of the examples and the random numbers of their augmentation are drawn once per epoch, from (seed, epoch).
So a step's examples depend only on its number, and not on the number of processes. A resumed run repeats exactly what
the uninterrupted run would have done, and every batch can be reconstructed later.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

from capsnet._support.errors import CapsnetError
from capsnet.data.augmentation import Affine, Compose, RandomPlacement, Shift
from capsnet.data.dataset import Batch, Dataset, Examples, Source
from capsnet.data.multi_label import MultiLabel
from capsnet.training.config import TrainConfig


@dataclass(frozen=True)
class BatchSchedule:
    """The number of steps, and the examples and random numbers of each step."""

    seed: int
    examples: int
    draws: int
    batch_size: int
    steps: int
    still: int | None = None
    """Number of the first step without augmentation; None: all have it."""
    neutral: int | None = None
    """How many of an example's draws settle; None: all. A random place belongs to the data, as in its test set."""
    weights: Float[Tensor, " examples"] | None = field(default=None, compare=False)
    """How often each example is drawn, relative to the others. None: once per epoch."""

    @classmethod
    def of(cls, config: TrainConfig, source: Source) -> Self:
        """Build the schedule of a training.

        All batches have the same size. A data set smaller than a batch is one batch.
        """
        batch_size = min(config.batch_size, len(source))
        steps = config.steps or config.epochs * (len(source) // batch_size)
        still = neutral = None
        if config.settle and isinstance(source, Examples | MultiLabel):
            still = steps - round(config.settle * steps)
            last = source.augment.steps[-1] if isinstance(source.augment, Compose) else source.augment
            if isinstance(last, RandomPlacement):
                neutral = source.draws - last.draws
        weights = example_weights(config, source)
        return cls(config.seed, len(source), source.draws, batch_size, steps, still, neutral, weights)

    @property
    def steps_per_epoch(self) -> int:
        """Return the number of whole batches in an epoch."""
        return self.examples // self.batch_size

    def epoch_of(self, step: int) -> int:
        """Return the epoch of a step; both count from 0."""
        return step // self.steps_per_epoch

    def epoch_seed(self, epoch: int) -> int:
        """Return the random seed of an epoch."""
        return self.seed * 1_000_003 + epoch

    def epoch(self, epoch: int) -> tuple[Tensor, Tensor]:
        """Draw an epoch's order (examples,) and uniform numbers (examples, draws).

        With weights, an example occurs as often as its share of the weights says, rounded up or down at random
        (systematic sampling). So a weight works for every model, and without larger gradients.
        """
        generator = torch.Generator().manual_seed(self.epoch_seed(epoch))
        order = torch.randperm(self.examples, generator=generator)
        if self.weights is not None:
            ends = self.weights.double().cumsum(0)
            start = torch.rand(1, generator=generator, dtype=torch.float64)
            places = (torch.arange(self.examples) + start) * (ends[-1] / self.examples)
            chosen = torch.searchsorted(ends, places, right=True)
            order = chosen.clamp(max=int(self.weights.nonzero()[-1]))[order]
        return order, torch.rand(self.examples, self.draws, generator=generator)

    def batches(self, first_step: int, device: torch.device) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Yield (step, indices, uniforms) of every step from `first_step` on."""
        epoch, order, uniforms = -1, torch.empty(0), torch.empty(0)
        for step in range(first_step, self.steps):
            if self.epoch_of(step) != epoch:
                epoch = self.epoch_of(step)
                order, uniforms = (x.to(device) for x in self.epoch(epoch))
            start = step % self.steps_per_epoch * self.batch_size
            rows = slice(start, start + self.batch_size)
            drawn = uniforms[rows]
            if (
                self.still is not None and step >= self.still
            ):  # in the middle of its range each change is none
                drawn = drawn.clone()
                drawn[:, : self.neutral] = 0.5
            yield step, order[rows], drawn

    def batch(self, source: Source, step: int) -> Batch:
        """Return the batch of a step.

        Args:
            source: the training examples, `augmented`.
            step: 1 … steps; counted from 1, as in the run's files.
        """
        _, indices, uniforms = next(self.batches(step - 1, torch.device("cpu")))
        return source.batch(indices, uniforms)


def example_weights(config: TrainConfig, source: Source) -> Float[Tensor, " examples"] | None:
    """Return the weights of the examples times those of their classes, on the CPU; None if all are the same.

    Raises:
        CapsnetError: the classes have weights and the images show several classes each, or no example has a weight.
    """
    own = source.weights if isinstance(source, Examples) else None
    weights = None if own is None else own.cpu().double()
    if config.class_weights is not None:
        if not isinstance(source, Examples):
            raise CapsnetError("class_weights need one class in each image; leave them out for this data set")
        labels = source.labels.cpu()
        counts = labels.bincount().double()
        if config.class_weights == "balanced":
            of_class = 1 / counts.clamp(min=1)
        else:
            of_class = torch.tensor(config.class_weights, dtype=torch.float64)
        weights = of_class[labels] * (1.0 if weights is None else weights)
        if not weights.sum() > 0:
            raise CapsnetError(
                "class_weights leave no example to train on; give a class that occurs a weight above 0"
            )
    return None if weights is None or bool((weights == weights[0]).all()) else weights


def check_class_weights(config: TrainConfig, dataset: Dataset) -> None:
    """Raise CapsnetError unless there is a weight for each class."""
    given, classes = config.class_weights, len(dataset.class_names)
    if isinstance(given, tuple) and len(given) != classes:
        raise CapsnetError(
            f"class_weights has {len(given)} numbers for {classes} classes; give one for each class"
        )


def augmented(source: Source, config: TrainConfig) -> Source:
    """Add the paper's random shifts, and rotations and scales if wanted.

    A source with an augmentation of its own, such as a random crop, keeps it in place of the shifts; its images are
    rotated and scaled before.
    """
    if not isinstance(source, Examples | MultiLabel):
        return source
    own, shift = source.augment, 0 if source.augment else config.shift
    if config.rotation or config.scale:
        factors = (1 - config.scale, 1 + config.scale)
        turn = Affine(config.rotation, scale=factors, translation=shift)
        return replace(source, augment=Compose((turn, own)) if own else turn)
    return replace(source, augment=Shift(shift)) if shift else source
