"""Choose a learning rate for each model, on training images only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf

import torch

from capsnet._support.errors import CapsnetError, NotFinite
from capsnet.data import Dataset
from capsnet.data.dataset import Examples
from capsnet.data.fixed_random import freeze
from capsnet.data.overlapping import Pairs
from capsnet.distributed import pick_device
from capsnet.experiments.parallel import Task, each
from capsnet.experiments.progress import Watch
from capsnet.experiments.recipe import Experiment, Variant
from capsnet.experiments.record import Record
from capsnet.experiments.running import Options, check_writable, chosen_variants, refuse_other_settings
from capsnet.experiments.trainings import forget, prepared, train_variant, with_options
from capsnet.inference.evaluation import Evaluation
from capsnet.training.loop import Progress

#: Learning rates to try; the first of equally good ones is taken.
RATES = (0.001, 0.003, 0.0003)
#: Seed of these trial trainings; the comparison's own trainings have other seeds.
SEED = 1000
#: Share of the training images on which the rates are compared.
HELD_OUT = 0.2
#: The table of random numbers for held-out pairs; see `frozen_uniforms`.
HELD_OUT_STREAM = 5


def tuned(variants: Sequence[Variant], dataset: Dataset, options: Options, watch: Watch) -> list[Variant]:
    """Return the variants, each with its best learning rate of `RATES`.

    Each rate is tried once, for the full number of steps, on four fifths of the training images. Errors are counted
    on the last fifth. The test images are not used. The comparison itself later trains on all training images.
    Of the rates at which a variant stops at its target error, the fastest is the best.

    Args:
        variants: variants with any learning rate.
        dataset: a data set that `inner_split` can split.
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
    what = "of" if getattr(dataset.train, "groups", None) is None else "of the objects of"
    trials = []
    for variant in variants:
        for rate in RATES:
            trial = with_options(with_rate(variant, rate), options.steps, options.precision)
            trial = replace(trial, pixels=f"four fifths {what} {variant.pixels or dataset.name}")
            trials.append(Task(f"{variant.name}: choosing a learning rate, {rate:g}", trial))
    if not options.resume:
        forget(((trial.of, SEED) for trial in trials), options.work)
    found = each(_Trial(inner, options), trials, options.workers, options.work, watch, options.resume)
    tried = {(trial.name, trial.training.learning_rate): result for trial, result in found}
    chosen = []
    for variant in variants:
        errors = {rate: tried[variant.name, rate][0] for rate in RATES}
        target = variant.stop.error if variant.stop else 0.0
        best = min(RATES, key=lambda rate: (max(errors[rate], target), tried[variant.name, rate][1]))
        if errors[best] == inf:
            raise CapsnetError(
                f"{dataset.name}: {variant.name} diverges at every learning rate of {', '.join(map(str, RATES))}; set "
                "a smaller one for all models with --learning-rate"
            )
        told = {f"{rate:g}": errors[rate] for rate in sorted(RATES)}
        chosen.append(replace(with_rate(variant, best), rate_errors=told))
    return chosen


def with_own_rates(experiment: Experiment, options: Options, watch: Watch | None = None) -> Experiment:
    """Return the experiment with each variant at its own learning rate.

    A rate is chosen once: records in `options.out` keep it. Only the quick scale has such rates, and only experiments
    with `own_rates`; others are returned as they are.

    Args:
        experiment: the experiment.
        options: as for `run_experiment`.
        watch: receiver of progress reports. None: choose no rates, use those of the records only.

    Raises:
        CapsnetError, StoppedExperiment: as `tuned`.
    """
    if options.scale != "quick" or not experiment.own_rates:
        return experiment
    wanted = {variant.name for variant in chosen_variants(experiment, options)}
    asked = experiment.variants(options.scale)
    rated = {
        variant.name: _recorded(experiment, variant, options) if variant.name in wanted else None
        for variant in asked
    }
    if watch is not None:
        pick_device(options.device)
        check_writable(options.out)
        new = [variant for variant in asked if variant.name in wanted and rated[variant.name] is None]
        for data in dict.fromkeys(variant.training.data for variant in new):
            own = [variant for variant in new if variant.training.data == data]
            dataset = experiment.load(own[0], SEED, options.data_dir)
            rated |= {variant.name: variant for variant in tuned(own, dataset, options, watch)}
    variants = tuple(rated[variant.name] or variant for variant in asked)
    return replace(experiment, variants=lambda _: variants)


def _recorded(experiment: Experiment, variant: Variant, options: Options) -> Variant | None:
    """Return the variant at the rate that a record of it has; None without a record.

    Records from before rates were chosen have none to choose from: their other seeds get the same rate.
    """
    if not options.resume:
        return None
    folder, fixed = options.out / experiment.name, None
    for path in sorted(folder.glob(f"{variant.name}-{options.scale}-s*.json")):
        record = Record.read(path)
        rated = with_rate(variant, record.training["learning_rate"])
        asked = with_options(rated, options.steps, options.precision)
        refuse_other_settings(path, record, asked)
        if record.rate_errors:
            errors = {rate: inf if error is None else error for rate, error in record.rate_errors.items()}
            return replace(rated, rate_errors=errors)
        fixed = rated
    return fixed


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
    """Train a variant at a rate; return its error on the held-out images, and its steps."""

    inner: Dataset
    options: Options

    def __call__(self, trial: Variant, progress: Progress | None) -> tuple[float, int]:
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
            return inf, 0
        result = done.run.result()
        assert result is not None
        return done.evaluation.error, result["steps"]


def with_rate(variant: Variant, rate: float) -> Variant:
    """Return the variant with another learning rate."""
    return replace(variant, training=replace(variant.training, learning_rate=rate))


def inner_split(dataset: Dataset) -> Dataset:
    """Split the training images: a fifth of each class becomes the test set.

    At least one image per class is held out if the class has two or more. Views of one object stay together: a fifth of
    the objects of each class is held out, so that rates are judged on new objects. Overlapping digits are made from
    digits of the same side only.

    Raises:
        TypeError: the training images are neither `Examples` nor `Pairs`.
    """
    train = dataset.train
    if isinstance(train, Pairs):
        sides = _split(train.examples, len(dataset.class_names))
        first, second = (Pairs.of(side, train.shift, train.canvas) for side in sides)
        return replace(dataset, train=first, test=freeze(second, HELD_OUT_STREAM))
    if not isinstance(train, Examples):
        raise TypeError(
            f"inner_split: the training images of {dataset.name} are {type(train).__name__}; they must be Examples or "
            "Pairs"
        )
    fit, judged = _split(train, len(dataset.class_names))
    return replace(dataset, train=fit, test=judged)


def _split(train: Examples, classes: int) -> tuple[Examples, Examples]:
    groups = torch.arange(len(train)) if train.groups is None else train.groups
    held_out = torch.zeros(len(train), dtype=torch.bool)
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(int(groups.max()) + 1 if len(train) else 0, generator=generator)
    for label in range(classes):
        own = order[torch.isin(order, groups[train.labels == label])]
        if len(own) > 1:
            held_out |= torch.isin(groups, own[: max(1, round(HELD_OUT * len(own)))])
    fit, judged = (torch.nonzero(which).flatten() for which in (~held_out, held_out))
    return train.subset(fit), train.subset(judged)
