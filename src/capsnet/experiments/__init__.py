"""The paper's experiments, each one command, each beside controls of the same size, kernel, data and steps.

recipe.py              what an experiment is
recipes/               the experiments, one file each
scales.py              smoke, quick, full
running.py             all runs of an experiment, one record each
trainings.py       one training: done, taken up again, or reused
record.py              what a run leaves behind, as JSON
statistics.py          intervals, p-values and their correction
record_groups.py         which records belong together, and which are of another recipe
verdicts.py            what became of the claims
comparison.py          the same for any data set, in one question: do capsules help?
tuning.py              a learning rate for each model of a comparison
page.py                tables and figures from the records
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from capsnet.experiments.progress import Watch
from capsnet.experiments.recipe import SCALES, Experiment, Scale
from capsnet.experiments.recipes import EXPERIMENTS, find_experiment
from capsnet.experiments.record import Record
from capsnet.experiments.registry import register
from capsnet.experiments.running import Options, run_experiment

__all__ = [
    "EXPERIMENTS",
    "SCALES",
    "Experiment",
    "Options",
    "Record",
    "Scale",
    "find_experiment",
    "register",
    "reproduce",
]


def reproduce(name: str, *, watch: Watch | None = None, **options: Any) -> list[Record]:
    """Run an experiment; see `Options` for what may be chosen, and `run_experiment` for what is raised.

    >>> reproduce("table1", scale="quick", seeds=3, out=Path("results"))  # doctest: +SKIP
    """
    for folder in ("out", "work", "data_dir"):
        if isinstance(options.get(folder), str):
            options[folder] = Path(options[folder])
    return run_experiment(find_experiment(name), Options(**options), watch)
