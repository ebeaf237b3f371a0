"""A learning rate for each model, chosen on training images, so that no comparison is decided by one rate for all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import inf

import torch

from capsnet._support.errors import CapsnetError, NotFinite
from capsnet.data import Dataset
from capsnet.data.dataset import Examples
from capsnet.experiments.progress import Watch
from capsnet.experiments.recipe import Variant
from capsnet.experiments.running import Options
from capsnet.experiments.trainings import prepared, train_variant, with_options
from capsnet.inference.evaluation import Evaluation
from capsnet.training.loop import Progress

#: The first of those that do equally well is taken.
RATES = (0.001, 0.003, 0.0003)
#: Of the trainings that choose; those that count have other seeds.
SEED = 1000
#: Share of the training images that the choice is made on.
HELD_OUT = 0.2


def tuned(variants: Sequence[Variant], dataset: Dataset, options: Options, watch: Watch) -> list[Variant]:
    """The variants with the learning rate of `RATES` at which each makes the fewest errors.

    Each rate is tried once, for as many steps as will count, on four fifths of the training images; the errors are
    those on the last fifth. The test images have no part in it, and all training images are trained on afterwards.

    Args:
        variants: any learning rate.
        dataset: its training images are `Examples`.
        options: as for `run_experiment`; trainings are kept in `options.work` and not repeated.
        watch: who watches.

    Raises:
        CapsnetError: as `run_experiment`.
        StoppedExperiment: by a signal; calling again goes on.
    """
    inner = inner_split(dataset)
    if not len(inner.test):
        raise CapsnetError(
            f"{dataset.name}: a learning rate cannot be chosen with one training image in each class; add images, or "
            "name one for all models with --learning-rate"
        )
    chosen = []
    for number, variant in enumerate(variants):
        errors = {}
        for place, rate in enumerate(RATES, start=1):
            trial = with_options(with_rate(variant, rate), options.steps, options.precision)
            trial = replace(trial, pixels=f"four fifths of {variant.pixels or dataset.name}")
            label = f"{variant.name}: choosing a learning rate, {rate:g}"
            with watch.training(label, number * len(RATES) + place, len(variants) * len(RATES)) as progress:
                errors[rate] = _error(trial, inner, options, progress)
        best = min(RATES, key=errors.__getitem__)
        if errors[best] == inf:
            raise CapsnetError(
                f"{dataset.name}: {variant.name} learns at none of {', '.join(map(str, RATES))}"
            )
        chosen.append(with_rate(variant, best))
    return chosen


class _OnTheWay:
    """Passes on how a training goes, and not its error, which is none of the test set's."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def logged(self, step: int, steps: int, values: dict[str, float]) -> None:
        self.progress.logged(step, steps, values)

    def evaluated(self, step: int, evaluation: Evaluation) -> None:
        """Nothing."""

    def noticed(self, message: str) -> None:
        self.progress.noticed(message)


def _error(trial: Variant, inner: Dataset, options: Options, progress: Progress) -> float:
    data = prepared(trial, SEED, inner, options.scale)
    watch, device, resume = _OnTheWay(progress), options.device, options.resume
    try:
        done = train_variant(trial, SEED, data, options.work, device=device, resume=resume, progress=watch)
    except NotFinite:  # that rate is too large
        return inf
    return done.evaluation.error


def with_rate(variant: Variant, rate: float) -> Variant:
    """The variant with another learning rate."""
    return replace(variant, training=replace(variant.training, learning_rate=rate))


def inner_split(dataset: Dataset) -> Dataset:
    """The training images alone, a fifth of each class (at least one, if there are two) in the place of the test set.

    Raises:
        TypeError: training images that are not `Examples`.
    """
    train = dataset.train
    if not isinstance(train, Examples):
        raise TypeError(f"inner_split: the training images of {dataset.name} are {type(train).__name__}")
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
    held_out = torch.zeros(len(train), dtype=torch.bool)
    for label in range(len(dataset.class_names)):
        own = order[train.labels[order] == label]
        held_out[own[: max(1, round(HELD_OUT * len(own)))] if len(own) > 1 else own[:0]] = True
    fit, judged = (torch.nonzero(which).flatten() for which in (~held_out, held_out))
    return replace(dataset, train=train.subset(fit), test=train.subset(judged))
