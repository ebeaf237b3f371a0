"""Run one training of an experiment: new, resumed or reused."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from capsnet._support.errors import CapsnetError, InUse
from capsnet.data import Dataset, short_name
from capsnet.data.dataset import Examples
from capsnet.data.fixed_random import Frozen
from capsnet.data.subsets import per_class
from capsnet.distributed import pick_device
from capsnet.experiments.recipe import SMOKE_EXAMPLES, Scale, Variant
from capsnet.inference.evaluation import Evaluation, evaluate
from capsnet.models import Classifier, load_model
from capsnet.training.config import Precision
from capsnet.training.loop import Interrupted, Progress, Silent, train
from capsnet.training.run import Run


class StoppedExperiment(Interrupted):
    """The process was asked to end; the run's state is saved."""

    def __init__(self, number: int, run: Run, resume: bool) -> None:
        super().__init__(number, run)
        self.args = (
            f"interrupted; the same command{'' if resume else ' without --no-resume'} goes on from here",
        )


def with_options(variant: Variant, steps: int | None, precision: Precision | None) -> Variant:
    """Return the variant with the steps and precision of the command line.

    Fewer steps than the paper's schedule was made for would end at a high learning rate, so they get a
    one-cycle schedule.
    """
    plan = variant.training
    if steps is not None and steps != plan.steps:
        shorter = plan.schedule == "paper" and plan.steps is not None and steps < plan.steps
        plan = replace(plan, steps=steps, schedule="one-cycle" if shorter else plan.schedule)
    if precision is not None:
        plan = replace(plan, precision=precision)
    return replace(variant, training=plan)


def prepared(variant: Variant, seed: int, dataset: Dataset, scale: Scale) -> Dataset:
    """Return the variant's data: few examples per class, few test images in a smoke run.

    Raises:
        CapsnetError: model and data do not fit, or a class has too few examples.
    """
    shape, classes = tuple(variant.model.image_shape), variant.model.num_classes
    if shape != tuple(dataset.image_shape) or classes != len(dataset.class_names):
        raise CapsnetError(
            f"{dataset.name}: images of {tuple(dataset.image_shape)} in {len(dataset.class_names)} classes, but "
            f"{variant.name} takes {shape} and {classes}; check the files of the data set"
        )
    if variant.per_class is not None:
        assert isinstance(dataset.train, Examples)
        dataset = replace(dataset, train=per_class(dataset.train, variant.per_class, seed))
    if scale == "smoke":
        assert isinstance(dataset.test, Examples | Frozen)
        few = torch.arange(min(SMOKE_EXAMPLES, len(dataset.test)))
        dataset = replace(dataset, test=dataset.test.subset(few))
    return dataset


@dataclass(frozen=True)
class Trial:
    """A finished training."""

    model: Classifier
    """In evaluation mode, on its device."""
    run: Run
    evaluation: Evaluation
    """Of the data set's own test set."""


def train_variant(
    variant: Variant,
    seed: int,
    dataset: Dataset,
    work: Path,
    *,
    device: str = "auto",
    resume: bool = True,
    progress: Progress | None = None,
    wait: bool = False,
) -> Trial:
    """Train, or go on, or find that it is done.

    Args:
        variant: what.
        seed: of weights, order and augmentation.
        dataset: `prepared`.
        work: the folder of all runs. A run's name says what determines it, so that experiments share runs.
        device: as for `capsnet.training.loop.train`.
        resume: False: the command was given with --no-resume, and has called `forget`; for the message of an
            interruption.
        progress: who watches.
        wait: for another process that does the same training, whose result is then used.

    Raises:
        StoppedExperiment: by a signal; calling again goes on.
        InUse: another process does the same training.
        CapsnetError: the training failed.
    """
    while True:
        try:
            return _train_variant(variant, seed, dataset, work, device, resume, progress or Silent())
        except InUse:
            if not wait:
                raise
            time.sleep(1)


def run_folder(variant: Variant, seed: int, work: Path) -> Path:
    """Return the folder of a training. Variants that are trained alike share it."""
    return work / f"{short_name(variant.training.data)}-{variant.settings(seed)}"


def forget(trainings: Iterable[tuple[Variant, int]], work: Path) -> None:
    """Remove earlier trainings, each once.

    Raises:
        InUse: another process is training one of them.
    """
    for folder in {run_folder(variant, seed, work) for variant, seed in trainings}:
        Run(folder).clear()


def _train_variant(
    variant: Variant, seed: int, dataset: Dataset, work: Path, device: str, resume: bool, progress: Progress
) -> Trial:
    config = replace(variant.training, seed=seed)
    folder = run_folder(variant, seed, work)
    run = Run(folder)
    if run.result() is not None:
        model = load_model(folder, device=pick_device(device))
        return Trial(model, run, evaluate(model, dataset.test.to(pick_device(device))))
    torch.manual_seed(seed)
    model = variant.build(dataset)
    taken_up = (folder / "config.json").exists()
    with Run.reopen(folder) if taken_up else Run.create(folder, model, config) as run:
        try:
            evaluation = train(
                model,
                dataset,
                config,
                run,
                device=device,
                resume=taken_up,
                progress=progress,
                stop=variant.stop,
            )
        except Interrupted as interruption:
            raise StoppedExperiment(interruption.number, run, resume) from interruption
    return Trial(model.eval(), run, evaluation)
