"""Run planned seeds within a time, the cheapest decisions first."""

from __future__ import annotations

import re
from math import isfinite

from capsnet._support.errors import CapsnetError
from capsnet.distributed import pick_device
from capsnet.experiments.parallel import now
from capsnet.experiments.planning import Plan, plan
from capsnet.experiments.progress import Unwatched, Watch
from capsnet.experiments.recipe import Experiment
from capsnet.experiments.running import Job, Options, chosen_variants, run_jobs

_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0}


def seconds_of(budget: str) -> float:
    """Return the seconds of a time such as "2h", "90m", "45s" or "1h30m".

    Raises:
        CapsnetError: it is none.
    """
    parts = re.findall(r"(\d+(?:\.\d+)?)([hms])", budget)
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if "".join(map("".join, parts)) != budget or not seconds or not isfinite(seconds):
        raise CapsnetError(f"--budget {budget}: a time above 0 with its unit, such as 2h, 90m, 45s or 1h30m")
    return seconds


def run_budget(experiment: Experiment, options: Options, seconds: float, watch: Watch | None = None) -> Plan:
    """Run the seeds that claims are planned to need, until the time is over.

    The order is that of `Plan.runs`. A training is begun only if it is likely to end in time, by the median of its
    variant's records. Stopped or killed at any time, the same call goes on: finished runs have records, and begun ones
    are resumed.

    Args:
        experiment: whose claims.
        options: its `seeds` are not used.
        seconds: the time, from now.
        watch: receives progress reports.

    Returns:
        What the claims need now.

    Raises:
        CapsnetError, StoppedExperiment: as `running.run_experiment`.
    """
    watch, end = watch or Unwatched(), now() + seconds
    pick_device(options.device)
    variants = {variant.name: variant for variant in chosen_variants(experiment, options)}
    while True:
        found = plan(experiment, options)
        jobs = [
            Job(variants[name], seed, latest=end - 60 * found.minutes.get(name, 0.0))
            for name, seed in found.runs
        ]
        if not run_jobs(experiment, jobs, options, watch):
            return found
