"""Run the paper's experiments, each beside comparable controls.

recipe.py              the types of an experiment: variants, measures, claims
recipes/               the experiments, one file each
scales.py              network sizes and training lengths of the scales smoke, quick and full
running.py             all runs of an experiment, one record each
trainings.py           one training: run, resumed or reused
record.py              the JSON record of a run
registry.py            experiments by name, also of other packages
progress.py            progress reports
statistics.py          intervals, p-values and their correction; means.py, of the mean of a few runs
spread.py              what varies in a difference, and how many seeds see through it
error_rates.py         how often verdicts err, by simulation
ensemble.py            the seeds of a variant together
record_groups.py       records that may be averaged together, and records of other settings
verdicts.py            a verdict for each claim
planning.py            the seeds that each claim needs; budget.py runs those that decide most in a given time
parallel.py            trainings in several processes or on a cluster
comparison.py          capsules against controls on any data set (`capsnet compare`)
tuning.py              a learning rate for each variant, chosen on training images
page.py                tables and figures from the records; figures.py draws those that experiments share
findings.py            what was found: one sentence for each question
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from capsnet.experiments.progress import Unwatched, Watch
from capsnet.experiments.recipe import SCALES, Experiment, Scale
from capsnet.experiments.recipes import EXPERIMENTS, find_experiment
from capsnet.experiments.record import Record
from capsnet.experiments.registry import register
from capsnet.experiments.running import Options, run_experiment
from capsnet.experiments.tuning import with_own_rates

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
    """Run an experiment; see `Options` and `run_experiment`.

    >>> reproduce("table1", scale="quick", seeds=3, out=Path("results"))  # doctest: +SKIP
    """
    for folder in ("out", "work", "data_dir"):
        if isinstance(options.get(folder), str):
            options[folder] = Path(options[folder])
    asked, watch = Options(**options), watch or Unwatched()
    return run_experiment(with_own_rates(find_experiment(name), asked, watch), asked, watch)
