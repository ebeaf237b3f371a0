"""The jobs, in order of worth."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

from benchmarks.gpu import agreement, routing, steps
from benchmarks.gpu.runner import Job, Setting

from capsnet._support import dispatch
from capsnet._support.environment import environment
from capsnet.experiments import Options, find_experiment
from capsnet.experiments.progress import Unwatched
from capsnet.experiments.running import Job as Run
from capsnet.experiments.running import chosen_variants, run_experiment, run_jobs
from capsnet.experiments.tuning import with_own_rates


def smoke(setting: Setting, save: Callable[[Any], None]) -> Any:
    """Check every path in seconds; what it does not find to be ok is not used by later jobs."""
    found: dict[str, Any] = {"environment": environment(), "checks": {}}
    print(found["environment"], flush=True)

    def step(precision: str, fast: bool) -> None:
        training = steps.Training(setting, steps.Variant(precision), 4, 10)
        with nullcontext() if fast else dispatch.disabled():
            training.run(5)  # the graph is captured in the fourth
        assert training.stepper.results().losses, "the loss is not finite"

    checks: dict[str, Callable[[], None]] = {
        "plain step, fp32": lambda: step("fp32", False),
        "plain step, bf16": lambda: step("bf16", False),
        "triton": lambda: routing.smoke(setting),  # from here on a kernel may have broken the CUDA context
        "fast step, fp32": lambda: step("fp32", True),
        "fast step, bf16": lambda: step("bf16", True),
    }
    for name, check in checks.items():
        try:
            check()
            found["checks"][name] = "ok"
        except Exception as error:  # a kernel that does not compile may raise anything
            found["checks"][name] = f"{type(error).__name__}: {str(error)[:300]}"
        print(f"{name}: {found['checks'][name]}", flush=True)
        save(found)
    return found


def record(name: str, variant: str, seed: int, at: int, average: float, setting: Setting) -> Any:
    """Train and measure one run of an experiment by `capsnet reproduce`'s own code."""
    experiment = find_experiment(name)
    home = "short" if at in (SHORT, OVERLAPPING) else f"steps-{at}"  # a file's name does not hold its steps
    options = Options(
        scale="smoke" if setting.toy else "full",
        out=setting.work / "records" / home,
        work=setting.work / "trainings",
        device=setting.device,
        variants=(variant,),
        steps=None if setting.toy else at,
        precision=None if setting.toy else "bf16",
    )
    (chosen,) = chosen_variants(experiment, options)
    chosen = replace(chosen, training=replace(chosen.training, average=average))
    found = run_jobs(experiment, [Run(chosen, seed)], options, Unwatched())[variant, seed]
    print(f"{name} {variant}, seed {seed}: {found.metrics} {found.tests['test'].error:.2%}", flush=True)
    return {"test": found.tests["test"].error, "steps": found.steps, "seconds": found.seconds}


def quick(name: str, setting: Setting) -> Any:
    """Run the quick scale of an experiment: rates, then all seeds; each record is written at once."""
    experiment = find_experiment(name)
    options = Options(
        scale="smoke" if setting.toy else "quick",
        out=setting.work / "records" / "quick",
        work=setting.work / "trainings",
        device=setting.device,
        variants=(experiment.variants("smoke")[0].name,) if setting.toy else (),
    )
    return len(run_experiment(with_own_rates(experiment, options, Unwatched()), options))


def _record(seconds: float, name: str, variant: str, seed: int, at: int, average: float = 0.0) -> Job:
    return Job(
        f"{name}:{variant}-s{seed}-{at}",
        seconds,
        lambda setting, _: record(name, variant, seed, at, average, setting),
    )


#: As the records that are there: 30 epochs of MNIST in batches of 128.
SHORT = 14_040
#: Steps on overlapping digits.
OVERLAPPING = 20_000
TABLE1 = (
    "r3-no-reconstruction",
    "r1-no-reconstruction",
    "official-r1",
    "cnn-baseline",
    "cnn-max-pool",
    "cnn-average-pool",
)
#: Experiments on MNIST whose many seeds take hours on two cores. What is ready when the time is over counts.
QUICK = ("multimnist", "affine", "table1", "calibration", "data-efficiency")
JOBS = [
    Job("smoke", 30, smoke),
    Job("routing", 70, lambda setting, _: routing.compare(setting)),
    Job("agree", 40, lambda setting, _: agreement.measure(setting)),
    Job("profile", 25, steps.profile),
    *(
        Job(
            f"step:{name}", 40 if option.compiled else 8, lambda setting, _, n=name: steps.measure(n, setting)
        )
        for name, option in steps.VARIANTS.items()
    ),
    *(_record(30, "table1", name, 0, SHORT) for name in TABLE1),
    *(_record(75, "multimnist", "r3", seed, OVERLAPPING) for seed in range(3)),
    _record(50, "multimnist", "cnn-baseline", 0, OVERLAPPING),
    *(
        _record(28, "table1", name, seed, SHORT)
        for seed in (3, 4)
        for name in ("r3-reconstruction", "r1-reconstruction", "cnn-same-stem")
    ),
    _record(85, "table1", "r3-reconstruction", 0, 3 * SHORT, average=0.02),
    *(Job(f"quick:{name}", 150, lambda setting, _, n=name: quick(n, setting)) for name in QUICK),
    _record(600, "table1", "r3-reconstruction", 0, 300_000),  # the paper's own schedule
]
