"""Trainings shared out to processes: the same records, none lost, none twice, whatever is killed."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from joblib import cpu_count

from capsnet import CapsnetError
from capsnet.data import load
from capsnet.experiments import EXPERIMENTS, Options, Record, reproduce
from capsnet.experiments.comparison import compare
from capsnet.experiments.parallel import Task, Workers, each
from capsnet.experiments.progress import Unwatched
from capsnet.experiments.record import read_records
from capsnet.training.loop import Progress, Silent

VARIANTS = ("r3-reconstruction", "cnn-max-pool")

pytestmark = pytest.mark.usefixtures("one_thread")


class Counting:
    """A watch that counts, and may act when a run is finished."""

    def __init__(self) -> None:
        self.done: list[tuple[str, int]] = []

    @contextmanager
    def training(self, run: str, number: int, of: int) -> Iterator[Progress]:
        yield Silent()

    def finished(self, record: Record) -> None:
        self.done.append((record.variant, record.seed))

    def skipped(self, run: str) -> None: ...


def small(data_dir: Path, folder: Path, **more: Any) -> dict[str, Any]:
    """A smoke run of two variants and two seeds."""
    asked = {"scale": "smoke", "steps": 12, "seeds": 2, "variants": VARIANTS, "device": "cpu"}
    return {**asked, "data_dir": data_dir, "out": folder / "out", "work": folder / "runs", **more}


def weights(folder: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in (folder / "runs").glob("*/model.safetensors")}


def timeless(record: Record) -> Record:
    """Without what the machine and the time of day give it."""
    return replace(record, seconds=0.0, environment={})


def test_records_and_weights_are_those_of_one_process(data_dir: Path, tmp_path: Path) -> None:
    alone = reproduce("table1", **small(data_dir, tmp_path / "alone"))
    watch = Counting()
    shared = reproduce("table1", watch=watch, **small(data_dir, tmp_path / "two", workers=Workers(2)))
    assert [timeless(record) for record in shared] == [timeless(record) for record in alone]
    assert sorted(watch.done) == sorted((name, seed) for name in VARIANTS for seed in (0, 1)), "each once"
    assert weights(tmp_path / "two") == weights(tmp_path / "alone")
    assert {record.environment["threads"] for record in shared} == {max(1, cpu_count() // 2)}


@pytest.mark.slow
def test_a_comparison_chooses_its_rates_in_processes_too(tmp_path: Path) -> None:
    dataset = load("mnist5k")
    groups = [
        compare(
            dataset,
            Options(scale="smoke", seeds=1, out=tmp_path / str(jobs), device="cpu", workers=Workers(jobs)),
        )
        for jobs in (1, 2)
    ]
    assert [timeless(one) for one in groups[0].records] == [timeless(one) for one in groups[1].records]


@pytest.mark.quick
def test_every_experiment_can_be_sent_to_another_process() -> None:
    from pickle import loads

    from joblib.externals.loky.backend.reduction import dumps

    for name, experiment in EXPERIMENTS.items():
        copy = loads(dumps(experiment))
        assert copy.name == name
        assert [v.settings(0) for v in copy.variants("quick")] == [
            v.settings(0) for v in experiment.variants("quick")
        ]


@pytest.mark.slow
def test_two_commands_do_a_training_that_they_share_once(data_dir: Path, tmp_path: Path) -> None:
    """The second waits for the first and uses what it trained."""
    asked = small(data_dir, tmp_path, workers=Workers(2), variants=VARIANTS[:1], seeds=1, steps=400)
    other = subprocess.Popen(
        command(asked, out=tmp_path / "other"), env=environment(), stderr=subprocess.PIPE, text=True
    )
    (record,) = reproduce("table1", **asked)
    _, said = other.communicate(timeout=300)
    assert other.returncode == 0, said
    (same,) = read_records(tmp_path / "other")
    assert (same.tests, same.seconds) == (record.tests, record.seconds), "the same training, not another"


def command(asked: dict[str, Any], *more: str, **changed: Any) -> list[str]:
    asked = {**asked, **changed}
    names = {"scale": "--scale", "steps": "--steps", "seeds": "--seeds", "out": "--out", "work": "--work"}
    names |= {"data_dir": "--data-dir", "device": "--device"}
    options = [part for key, name in names.items() if key in asked for part in (name, str(asked[key]))]
    options += [part for variant in asked["variants"] for part in ("--variant", variant)]
    return [sys.executable, "-m", "capsnet", "reproduce", "table1", "--jobs", "2", *options, *more]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def waits(_: int, progress: Progress | None) -> int:
    time.sleep(60)
    return 0


def misses(number: int, _: Progress | None) -> int:
    if number:
        raise CapsnetError("mnist: it is not on this machine")
    return number


def dies(_: int, progress: Progress | None) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("function", "message"),
    [(misses, "mnist: it is not on this machine"), (dies, "a worker process was killed.*Repeat the command")],
)
def test_what_fails_in_a_process_is_one_error_here(function: Any, message: str, tmp_path: Path) -> None:
    tasks = [Task(str(number), number) for number in range(4)]
    with pytest.raises(CapsnetError, match=message):
        list(each(function, tasks, Workers(2), tmp_path, Unwatched()))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_budget_goes_on(data_dir: Path, tmp_path: Path, number: int) -> None:
    asked = small(data_dir, tmp_path, steps=200, variants=("r3-reconstruction", "r1-reconstruction"))
    del asked["seeds"]
    line = command(asked, "--budget", "1h")
    first = subprocess.Popen(line, env=environment(), stderr=subprocess.PIPE, text=True)
    wait_for(lambda: len(files(tmp_path)) >= 3)
    processes = children(first.pid)
    assert len(processes) >= 2
    first.send_signal(number)
    _, said = first.communicate(timeout=300)
    assert first.returncode == (-number if number == signal.SIGKILL else 128 + number), said
    if number != signal.SIGKILL:
        assert "the same command goes on from here" in " ".join(said.split())
    wait_for(lambda: not any(Path(f"/proc/{process}").exists() for process in processes))
    before = files(tmp_path)
    assert 3 <= len(before) < 16
    again = subprocess.run(line, env=environment(), capture_output=True, text=True, timeout=300, check=False)
    assert again.returncode == 0, again.stderr
    assert "All planned seeds are there." in again.stdout
    after = files(tmp_path)
    assert len(after) == 16
    assert {name: after[name] for name in before} == before, "what was finished is not done again"
    assert len(weights(tmp_path)) == 16, "one training each"
    (whole,) = reproduce("table1", **{**asked, "out": tmp_path / "whole", "work": tmp_path / "w"}, seeds=1)[
        :1
    ]
    assert json.loads(after["r3-reconstruction-smoke-s0.json"])["tests"]["test"]["errors"] == (
        whole.tests["test"].errors
    )


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "out").glob("table1/*.json")}


def children(process: int) -> list[int]:
    """The processes that a process has started, those of joblib's trackers too."""
    found = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [int(child) for child in found]


def wait_for(condition: Any, seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.1)


@pytest.mark.slow
def test_a_cluster_that_loses_a_worker_loses_no_training(data_dir: Path, tmp_path: Path) -> None:
    """A local Dask cluster of two workers, one of which is killed in the middle of a training."""
    dask, distributed = pytest.importorskip("dask"), pytest.importorskip("distributed")
    alone = reproduce("table1", **small(data_dir, tmp_path / "alone", steps=200, seeds=3))
    cluster = distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=True,
        dashboard_address=None,
        silence_logs=logging.CRITICAL,
    )
    with cluster, dask.config.set({"scheduler-address": cluster.scheduler_address}):
        with distributed.Client(set_as_default=False) as client:
            workers = client.run(os.getpid)

        class Killing(Counting):
            def finished(self, record: Record) -> None:
                super().finished(record)
                if len(self.done) == 2:
                    os.kill(next(iter(workers.values())), signal.SIGKILL)

        watch = Killing()
        asked = small(data_dir, tmp_path / "cluster", steps=200, seeds=3, workers=Workers(None, "dask"))
        shared = reproduce("table1", watch=watch, **asked)
    assert [timeless(record) for record in shared] == [timeless(record) for record in alone]
    assert sorted(watch.done) == sorted((name, seed) for name in VARIANTS for seed in range(3)), "each once"
    assert weights(tmp_path / "cluster") == weights(tmp_path / "alone")


@pytest.mark.slow
def test_no_cluster_is_one_line(data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dask = pytest.importorskip("dask")
    asked = small(data_dir, tmp_path, workers=Workers(None, "dask"))
    with pytest.raises(
        CapsnetError, match=r"--backend dask: no cluster answers \(start one.*SCHEDULER_ADDRESS"
    ):
        reproduce("table1", **asked)
    with (
        dask.config.set(
            {"scheduler-address": "tcp://127.0.0.1:9", "distributed.comm.timeouts.connect": "2s"}
        ),
        pytest.raises(CapsnetError, match=r"--backend dask: no cluster answers \(Timed out"),
    ):
        reproduce("table1", **asked)
