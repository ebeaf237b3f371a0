"""How many seeds claims need, what they cost, and runs within a time."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from capsnet import CapsnetError
from capsnet.experiments import EXPERIMENTS, Options, Record, budget, planning
from capsnet.experiments.budget import run_budget, seconds_of
from capsnet.experiments.planning import plan
from capsnet.experiments.progress import Unwatched
from capsnet.experiments.record import record_path
from capsnet.experiments.running import Job
from capsnet.experiments.spread import LEAST, PILOT
from command import Command
from made_up import answers, runs

TABLE1 = EXPERIMENTS["table1"]
ROUTING = ("r3-reconstruction", "r1-reconstruction")
RECONSTRUCTION = ("r3-reconstruction", "r3-no-reconstruction")


def write(out: Path, records: list[Record], minutes: float = 1.0) -> None:
    for one in records:
        path = record_path(out, one.experiment, one.variant, one.scale, one.seed)
        replace(one, seconds=60 * minutes).write(path)


def quick(variant: str, errors: list[int]) -> list[Record]:
    """Errors of 100,000 images."""
    return [
        replace(one, tests={"test": answers(np.arange(100_000) < count)})
        for one, count in zip(runs(variant, errors, "quick"), errors, strict=True)
    ]


def options(out: Path, *variants: str, **more: Any) -> Options:
    return Options(out=out, work=out / "runs", variants=variants, device="cpu", **more)


@pytest.mark.quick
def test_a_plan_says_what_each_claim_needs_and_costs(tmp_path: Path) -> None:
    write(tmp_path, quick(ROUTING[0], [1000, 1040, 960]), minutes=2)
    write(tmp_path, quick(ROUTING[1], [1100, 1020, 1180]), minutes=1)
    found = plan(TABLE1, options(tmp_path, *ROUTING))
    (claim,) = found.prospects
    assert claim.needs is not None
    assert claim.needs.margin == claim.needs.seen, "0.1 points were seen, which is the margin"
    assert PILOT < claim.needs.equivalence <= claim.needs.margin < 30
    assert claim.planned == claim.needs.margin
    assert found.minutes == {ROUTING[0]: 2, ROUTING[1]: 1}
    assert len(claim.missing) == 2 * (claim.planned - 3)
    assert claim.minutes == pytest.approx(3 * (claim.planned - 3))
    assert f"undecided with 3 seeds. Seeds for a chance of 80 %: {claim.needs.margin} if the" in claim.line
    assert (
        f"is 0.10 points, the least that matters; {claim.needs.equivalence} if there is none; " in claim.line
    )
    assert claim.line.endswith(
        f"seen, -0.10 points. Planned: {claim.planned}, {claim.minutes:.0f} minutes more."
    )
    assert found.lines[-1].startswith(
        f"All together: {len(claim.missing)} trainings, {claim.minutes:.0f} min"
    )


@pytest.mark.quick
def test_a_plan_looks_at_the_spread_of_the_first_seeds_only(tmp_path: Path) -> None:
    """What later seeds say, and how large the difference is, has no part in it: or seeds would be added until one
    likes the verdict."""
    first = quick(ROUTING[0], [1000, 1040, 960]), quick(ROUTING[1], [1100, 1020, 1180])
    write(tmp_path, [one for side in first for one in side])
    before = plan(TABLE1, options(tmp_path, *ROUTING)).prospects[0].planned
    write(tmp_path, quick(ROUTING[0], [1000, 1040, 960, 500, 1500]))
    write(tmp_path, quick(ROUTING[1], [1100, 1020, 1180, 1500, 500]))
    assert plan(TABLE1, options(tmp_path, *ROUTING)).prospects[0].planned == before
    write(tmp_path / "reverse", quick(ROUTING[1], [1000, 1040, 960]))
    write(tmp_path / "reverse", quick(ROUTING[0], [1100, 1020, 1180]))
    assert plan(TABLE1, options(tmp_path / "reverse", *ROUTING)).prospects[0].planned == before


@pytest.mark.quick
def test_a_settled_claim_and_one_without_a_common_seed(tmp_path: Path) -> None:
    write(tmp_path, quick(ROUTING[0], [1000, 1001, 999]))
    write(tmp_path, quick(ROUTING[1], [9000, 9001, 8999]))
    settled, unknown = plan(TABLE1, options(tmp_path, *ROUTING, RECONSTRUCTION[1])).prospects
    assert settled.missing == ()
    assert settled.line.endswith("supported with 3 seeds; settled, p is below 0.001.")
    assert (unknown.needs, unknown.planned) == (None, LEAST)
    assert "no seed of both. Planned: 8, 13 minutes more." in unknown.line


@pytest.mark.quick
def test_the_cheapest_decisions_come_first_and_shared_runs_count_once(tmp_path: Path) -> None:
    write(tmp_path, quick(ROUTING[0], [1000, 1000, 1000]), minutes=1)
    write(tmp_path, quick(ROUTING[1], [1000, 1001, 1002]), minutes=9)
    write(tmp_path, quick(RECONSTRUCTION[1], [1000, 1001]), minutes=2)
    found = plan(TABLE1, options(tmp_path, *ROUTING, RECONSTRUCTION[1]))
    assert [prospect.planned for prospect in found.prospects] == [LEAST, LEAST]
    runs = found.runs
    assert runs[0] == (RECONSTRUCTION[1], 2), "what a plan is made from"
    assert [name for name, _ in runs[1:11]] == [*RECONSTRUCTION] * 5
    assert [name for name, _ in runs[11:]] == [ROUTING[1]] * 5, "r3-reconstruction was counted before"
    assert [seed for _, seed in runs[11:]] == [3, 4, 5, 6, 7]
    assert found.cost(runs) == 2 + 5 * 3 + 5 * 9


@pytest.mark.quick
@pytest.mark.parametrize(
    ("text", "seconds"), [("2h", 7200), ("90m", 5400), ("45s", 45), ("1h30m", 5400), ("1.5h", 5400)]
)
def test_a_budget_is_a_time(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.quick
@pytest.mark.parametrize("text", ["", "soon", "2", "-1h", "2 h", "0m", "1h 30m", "h", "1d", f"{'9' * 400}h"])
def test_what_is_no_time_is_no_budget(text: str) -> None:
    with pytest.raises(CapsnetError, match=r"--budget .*: a time above 0 with its unit, such as 2h"):
        seconds_of(text)


class Clock:
    """Trainings that take the time of their variant's records, on a clock of their own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, result: Callable[[Job], Record]) -> None:
        self.now, self.trained = 0.0, list[tuple[str, int]]()
        monkeypatch.setattr(budget, "now", lambda: self.now)

        def run_jobs(experiment: Any, jobs: list[Job], options: Options, watch: Any) -> dict:
            done = {}
            for job in jobs:
                if job.latest is None or self.now <= job.latest:
                    record = result(job)
                    self.now += record.seconds
                    write(options.out, [record], record.seconds / 60)
                    self.trained.append(job.key)
                    done[job.key] = record
            return done

        monkeypatch.setattr(budget, "run_jobs", run_jobs)


def test_a_budget_runs_what_fits_and_goes_on_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(0)

    def result(job: Job) -> Record:
        errors = [1000 + int(random.normal(0, 5)) for _ in range(job.seed + 1)]
        return replace(quick(job.variant.name, errors)[-1], seconds=60.0)

    clock = Clock(monkeypatch, result)
    asked = options(tmp_path, *ROUTING)
    left = run_budget(TABLE1, asked, 60 * 5 - 1)
    assert clock.trained == [(name, seed) for seed in (0, 1) for name in ROUTING] + [(ROUTING[0], 2)]
    assert clock.now == 300
    assert len(left.runs) == 2 * LEAST - 5
    for _ in range(3):
        left = run_budget(TABLE1, asked, 60 * 7.5)
    assert sorted(clock.trained) == sorted((name, seed) for name in ROUTING for seed in range(LEAST)), (
        "each once"
    )
    assert left.lines[-1] == "All planned seeds are there."
    assert left.prospects[0].line.endswith(f"Planned: {LEAST}, which are there.")
    run_budget(TABLE1, asked, 3600)
    assert len(clock.trained) == 2 * LEAST, "nothing is left to do"


def test_a_training_is_not_begun_that_would_not_end_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, quick(ROUTING[0], [1000, 1001, 1002]), minutes=10)
    write(tmp_path, quick(ROUTING[1], [1001, 1002, 1004]), minutes=1)
    clock = Clock(monkeypatch, lambda job: quick(job.variant.name, [1000] * (job.seed + 1))[-1])
    run_budget(TABLE1, options(tmp_path, *ROUTING), 60 * 5)
    assert {name for name, _ in clock.trained} == {ROUTING[1]}


def test_a_late_job_is_left_out(data_dir: Path, tmp_path: Path) -> None:
    asked = Options(scale="smoke", out=tmp_path, work=tmp_path / "runs", device="cpu", data_dir=data_dir)
    variant = TABLE1.variants("smoke")[0]
    late, in_time = Job(variant, 0, latest=1.0), Job(variant, 1, latest=1e12)
    assert list(budget.run_jobs(TABLE1, [late, in_time], asked, Unwatched())) == [in_time.key]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--budget", "soon"), "--budget soon: a time above 0 with its unit"),
        (("--jobs", "0"), "--jobs 0: at least 1"),
        (("--backend", "slurm"), "--backend slurm: choose one of loky, dask, ray"),
        (
            ("--plan",),
            "no results of table1 at the smoke scale to plan by; capsnet reproduce table1 makes some",
        ),
        (("--plan", "--budget", "2h"), "--plan and --budget exclude each other"),
        (("--plan", "--seeds", "3"), "--plan and --seeds exclude each other"),
        (("--budget", "2h", "--no-resume"), "--budget and --no-resume exclude each other"),
        (
            ("--plan", "--variant", "r3-reconstruction"),
            "has no claim that compares two of r3-reconstruction; plan other variants",
        ),
    ],
)
def test_senseless_plans_are_one_line(
    capsnet: Command, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    outcome = capsnet("reproduce", "table1", "--scale", "smoke", "--out", tmp_path / "out", *arguments)
    assert outcome.code == 2
    assert message in " ".join(outcome.err.split())
    assert outcome.err.startswith("error: ")
    assert len(outcome.err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("backend", ["dask", "ray"])
def test_a_backend_that_is_not_installed_is_one_line(
    capsnet: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    monkeypatch.setattr("capsnet.experiments.parallel.find_spec", lambda name: None)
    outcome = capsnet("reproduce", "table1", "--backend", backend, "--out", tmp_path)
    assert (outcome.code, outcome.err) == (
        2,
        f"error: --backend {backend}: it is not installed; pip install 'capsnet[cluster]'\n",
    )


def test_the_command_plans(capsnet: Command, tmp_path: Path) -> None:
    write(tmp_path, quick(ROUTING[0], [1000, 1040, 960]))
    write(tmp_path, quick(ROUTING[1], [1100, 1020, 1180]))
    outcome = capsnet("reproduce", "table1", "--plan", "--out", tmp_path)
    assert outcome.code == 0
    lines = outcome.out.splitlines()
    assert len(lines) == len(TABLE1.claims) + 1
    assert lines[0] == planning.plan(TABLE1, options(tmp_path)).prospects[0].line
    assert lines[-1].startswith("All together: ")
