"""Register experiments by name, including those of other packages.

Other packages use entry points of the group `capsnet.experiments`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from capsnet._support.registry import Registry
from capsnet.experiments.recipe import Experiment

_EXPERIMENTS: Registry[Experiment] = Registry(
    "experiment", "capsnet.experiments", needs=("name", "variants", "measure", "claims")
)


def register(recipe: Callable[[], Experiment]) -> Callable[[], Experiment]:
    """Register the experiment that a function returns (a decorator).

    Raises:
        CapsnetError: the name is taken or malformed, or it is not an experiment.
    """
    add(recipe())
    return recipe


def add(experiment: Experiment) -> None:
    """Register an experiment under its name.

    Raises:
        CapsnetError: as `register`.
    """
    _EXPERIMENTS.register(getattr(experiment, "name", ""))(experiment)


class ByName(Mapping[str, Experiment]):
    """Map names to experiments: first the paper's, then other registered ones."""

    def __getitem__(self, name: str) -> Experiment:
        if name not in _EXPERIMENTS.names():
            raise KeyError(name)
        return _EXPERIMENTS.get(name)

    def __iter__(self) -> Iterator[str]:
        return iter(_EXPERIMENTS.names())

    def __len__(self) -> int:
        return len(_EXPERIMENTS.names())


def find_experiment(name: str) -> Experiment:
    """Return an experiment by name.

    Raises:
        CapsnetError: the name is unknown, or the plug-in cannot be used.
    """
    return _EXPERIMENTS.get(name)
