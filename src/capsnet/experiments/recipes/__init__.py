"""The paper's experiments, one file each, and all of them by name."""

from __future__ import annotations

from capsnet._support.errors import CapsnetError, did_you_mean
from capsnet.experiments.recipe import Experiment
from capsnet.experiments.recipes import (
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
