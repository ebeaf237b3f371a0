"""Choose a learning rate for each model, on training images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf

import torch

from capsnet._support.errors import CapsnetError, NotFinite
from capsnet.data import Dataset
from capsnet.data.dataset import Examples
from capsnet.experiments.parallel import Task, each
from capsnet.experiments.progress import Watch
from capsnet.experiments.recipe import Variant
from capsnet.experiments.running import Options
from capsnet.experiments.trainings import prepared, train_variant, with_options
from capsnet.inference.evaluation import Evaluation
from capsnet.training.loop import Progress

#: Learning rates to try; the first of equally good ones is taken.
RATES = (0.001, 0.003, 0.0003)
#: Seed of these trial trainings; the comparison's own trainings have other seeds.
SEED = 1000
#: Share of the training images on which the rates are compared.
HELD_OUT = 0.2


def tuned(variants: Sequence[Variant], dataset: Dataset, options: Options, watch: Watch) -> list[Variant]:
    """Return the variants, each with its best learning rate of `RATES`.

    Each rate is tried once, for the full number of steps, on four fifths of the training images. Errors are counted
    on the last fifth. The test images are not used. The comparison itself later trains on all training images.

    Args:
        variants: variants with any learning rate.
        dataset: a data set whose training images are `Examples`.
        options: as for `run_experiment`; trainings are kept in `options.work` and not repeated.
        watch: receiver of progress reports.

    Raises:
        CapsnetError: as `run_experiment`.
        StoppedExperiment: a signal stopped it; call it again to resume.
    """
    inner = inner_split(dataset)
    if not len(inner.test):
        raise CapsnetError(
            f"{dataset.name}: a learning rate cannot be chosen with one training image per class; add images, or set "
            "one for all models with --learning-rate"
        )
    trials = []
    for variant in variants:
        for rate in RATES:
            trial = with_options(with_rate(variant, rate), options.steps, options.precision)
            trial = replace(trial, pixels=f"four fifths of {variant.pixels or dataset.name}")
            trials.append(Task(f"{variant.name}: choosing a learning rate, {rate:g}", trial))
    found = each(_Trial(inner, options), trials, options.workers, options.work, watch)
    errors = {(trial.name, trial.training.learning_rate): error for trial, error in found}
    chosen = []
    for variant in variants:
        best = min(RATES, key=lambda rate: errors[variant.name, rate])
        if errors[variant.name, best] == inf:
            raise CapsnetError(
                f"{dataset.name}: {variant.name} diverges at every learning rate of {', '.join(map(str, RATES))}; set "
                "a smaller one for all models with --learning-rate"
            )
        chosen.append(with_rate(variant, best))
    return chosen


class _OnTheWay:
    """Pass on the progress of a trial training, without its error."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def logged(self, step: int, steps: int, values: dict[str, float]) -> None:
        self.progress.logged(step, steps, values)

    def evaluated(self, step: int, evaluation: Evaluation) -> None:
        """Do nothing."""

    def noticed(self, message: str) -> None:
        self.progress.noticed(message)


@dataclass(frozen=True)
class _Trial:
    """Train a variant at a rate; return its error on the held-out images."""

    inner: Dataset
    options: Options

    def __call__(self, trial: Variant, progress: Progress | None) -> float:
        data = prepared(trial, SEED, self.inner, self.options.scale)
        try:
            done = train_variant(
                trial,
                SEED,
                data,
                self.options.work,
                device=self.options.device,
                resume=self.options.resume,
                progress=None if progress is None else _OnTheWay(progress),
                wait=progress is None,
            )
        except NotFinite:  # that rate is too large
            return inf
        return done.evaluation.error


def with_rate(variant: Variant, rate: float) -> Variant:
    """Return the variant with another learning rate."""
    return replace(variant, training=replace(variant.training, learning_rate=rate))


def inner_split(dataset: Dataset) -> Dataset:
    """Split the training images: a fifth of each class becomes the test set.

    At least one image per class is held out if the class has two or more.

    Raises:
        TypeError: the training images are not `Examples`.
    """
    train = dataset.train
    if not isinstance(train, Examples):
        raise TypeError(
            f"inner_split: the training images of {dataset.name} are {type(train).__name__}; they must be Examples"
        )
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
    held_out = torch.zeros(len(train), dtype=torch.bool)
    for label in range(len(dataset.class_names)):
        own = order[train.labels[order] == label]
        held_out[own[: max(1, round(HELD_OUT * len(own)))] if len(own) > 1 else own[:0]] = True
    fit, judged = (torch.nonzero(which).flatten() for which in (~held_out, held_out))
    return replace(dataset, train=train.subset(fit), test=train.subset(judged))
