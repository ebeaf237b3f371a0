"""Register the paper's experiments, one file each."""

from __future__ import annotations

from collections.abc import Mapping

from capsnet.experiments.recipe import Experiment
from capsnet.experiments.recipes import (
    affine,
    calibration,
    data_efficiency,
    dimensions,
    equivariance,
    mnist_evening,
    multimnist,
    multimnist_long,
    photographs,
    routing_iterations,
    routings,
    smallnorb,
    table1,
    unfamiliar,
    viewpoint,
)
from capsnet.experiments.registry import ByName, add, find_experiment

__all__ = ["EXPERIMENTS", "find_experiment"]

for _experiment in (
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
    unfamiliar.EXPERIMENT,
    calibration.EXPERIMENT,
    routings.EXPERIMENT,
    mnist_evening.EXPERIMENT,
):
    add(_experiment)

#: All experiments by name: first the paper's, in its order.
EXPERIMENTS: Mapping[str, Experiment] = ByName()
