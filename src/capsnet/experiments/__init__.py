"""The paper's experiments, each one command, each beside controls of the same size, kernel, data and steps.

recipe.py              what an experiment is
sizes.py               the scales: smoke, quick, full
table1.py …            the experiments
running.py             all runs of an experiment, one record each
training_runs.py       one training: done, taken up again, or reused
record.py              what a run leaves behind, as JSON
statistics.py          intervals, p-values and their correction
grouping.py            which records belong together, and which are of another recipe
verdicts.py            what became of the claims
comparison.py          the same for any data set, in one question: do capsules help?
tuning.py              a learning rate for each model of a comparison

`capsnet.results` makes tables and figures from the records.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from capsnet.errors import CapsnetError, did_you_mean
from capsnet.experiments import (
    affine,
    data_efficiency,
    dimensions,
    equivariance,
    multimnist,
    multimnist_long,
    photographs,
    routing_iterations,
    smallnorb,
    table1,
    viewpoint,
)
from capsnet.experiments.recipe import SCALES, Experiment, Scale
from capsnet.experiments.record import Record
from capsnet.experiments.running import Options, run_experiment
from capsnet.experiments.watching import Watch

__all__ = [
    "EXPERIMENTS",
    "SCALES",
    "Experiment",
    "Options",
    "Record",
    "Scale",
    "find_experiment",
    "reproduce",
]

#: Every experiment by name, in the order of the paper.
EXPERIMENTS: dict[str, Experiment] = {
    experiment.name: experiment
    for experiment in (
        table1.EXPERIMENT,
        multimnist.EXPERIMENT,
        multimnist_long.EXPERIMENT,
        affine.EXPERIMENT,
        equivariance.EXPERIMENT,
        data_efficiency.EXPERIMENT,
        routing_iterations.EXPERIMENT,
        dimensions.EXPERIMENT,
        smallnorb.EXPERIMENT,
        viewpoint.OBJECTS,
        viewpoint.SMALLNORB,
        photographs.CIFAR10,
        photographs.SVHN,
    )
}


def find_experiment(name: str) -> Experiment:
    """An experiment by name.

    Raises:
        CapsnetError: there is none of that name.
    """
    if name not in EXPERIMENTS:
        raise CapsnetError(
            f"there is no experiment {name!r}; choose one of {', '.join(EXPERIMENTS)}{did_you_mean(name, EXPERIMENTS)}"
        )
    return EXPERIMENTS[name]


def reproduce(name: str, *, watch: Watch | None = None, **options: Any) -> list[Record]:
    """Run an experiment; see `Options` for what may be chosen, and `run_experiment` for what is raised.

    >>> reproduce("table1", scale="quick", seeds=3, out=Path("results"))  # doctest: +SKIP
    """
    for folder in ("out", "work", "data_dir"):
        if isinstance(options.get(folder), str):
            options[folder] = Path(options[folder])
    return run_experiment(find_experiment(name), Options(**options), watch)
