"""Several processes are the same training as one."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from capsnet._support.errors import CapsnetError
from capsnet.training.run import Run
from capsnet.training.step import _check_launch

LAUNCH = [
    sys.executable,
    "-m",
    "torch.distributed.run",
    "--rdzv-backend",
    "c10d",
    "--rdzv-endpoint",
    "localhost:0",
]

#: Seconds after which a job counts as stuck.
HUNG = 600


def command(processes: int, *arguments: object) -> list[str]:
    one = [sys.executable] if processes == 1 else [*LAUNCH, "--nproc-per-node", str(processes)]
    return [*one, "-m", "capsnet", "train", "--device", "cpu", "--no-report", *map(str, arguments)]


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    folder = tmp_path_factory.mktemp("pictures")
    chance = np.random.default_rng(0)
    for label in range(2):
        (folder / str(label)).mkdir()
        for number in range(40):
            pixels = chance.integers(0, 100, (18, 18), np.uint8)
            pixels[9 * label : 9 * label + 9] += 120
            Image.fromarray(pixels).save(folder / str(label) / f"{number}.png")
    options = {
        "data": f"folder:{folder}",
        "stem-channels": 8,
        "primary-types": 2,
        "batch-size": 16,
        "steps": 20,
    }
    return tuple(str(part) for name, value in options.items() for part in (f"--{name}", value))


def run(arguments: list[str]) -> None:
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=HUNG)
    assert done.returncode == 0, done.stderr[-2000:]


def losses(folder: Path) -> list[float]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def test_two_processes_are_the_same_training_as_one(tmp_path: Path, fresh: tuple[str, ...]) -> None:
    run(command(1, *fresh, "--out", tmp_path / "one"))
    run(command(2, *fresh, "--out", tmp_path / "two"))
    np.testing.assert_allclose(losses(tmp_path / "two"), losses(tmp_path / "one"), rtol=1e-4)
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    for name in one:
        np.testing.assert_allclose(two[name], one[name], rtol=1e-2, atol=1e-3)
    assert json.loads((tmp_path / "two" / "result.json").read_text())["processes"] == 2


@pytest.mark.skipif(torch.accelerator.is_available(), reason="would be trained there")
def test_processes_find_each_other_where_there_is_nothing_but_cpus(
    tmp_path: Path, fresh: tuple[str, ...]
) -> None:
    arguments = command(2, *fresh, "--out", tmp_path / "two")
    arguments.remove("--device")
    arguments.remove("cpu")
    run(arguments)
    assert json.loads((tmp_path / "two" / "result.json").read_text())["processes"] == 2


def test_a_killed_worker_ends_the_job_and_one_process_can_resume_it(
    tmp_path: Path, fresh: tuple[str, ...]
) -> None:
    run(command(1, *fresh, "--out", tmp_path / "whole"))
    arguments = command(2, *fresh, "--out", tmp_path / "killed", "--save-seconds", 0)
    job = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
    state = tmp_path / "killed" / "state.safetensors"
    deadline = time.monotonic() + HUNG
    while not state.exists() and job.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    for worker in workers_of(job.pid)[-1:]:
        os.kill(worker, signal.SIGKILL)
    _, errors = job.communicate(timeout=HUNG)
    if job.returncode:  # it may have ended before the kill arrived
        assert "SIGKILL" in errors
        assert f"capsnet train --resume {tmp_path / 'killed'}" in errors
        assert "[rank0]: Traceback" not in errors
        run(
            [
                sys.executable,
                "-m",
                "capsnet",
                "train",
                "--resume",
                str(tmp_path / "killed"),
                "--no-report",
            ]
        )
    np.testing.assert_allclose(losses(tmp_path / "killed"), losses(tmp_path / "whole"), rtol=1e-4)


@pytest.fixture(scope="module")
def signalled(tmp_path_factory: pytest.TempPathFactory, fresh: tuple[str, ...]) -> tuple[Path, str]:
    """A run of two processes, one of which got SIGTERM on the way, and what they said."""
    folder = tmp_path_factory.mktemp("signalled") / "run"
    options = ("--steps", 10_000, "--evaluate-every", 0, "--save-seconds", 0, "--out", folder)
    job = subprocess.Popen(command(2, *fresh, *options), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + HUNG
    while not (folder / "state-before.safetensors").exists() and job.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(workers_of(job.pid)[-1], signal.SIGTERM)
    _, errors = job.communicate(timeout=HUNG)
    return folder, errors


def test_a_signal_to_one_process_stops_all_after_the_same_step(signalled: tuple[Path, str]) -> None:
    folder, errors = signalled
    assert errors.count(f"interrupted; continue with: capsnet train --resume {folder}") == 1
    assert "[rank" not in errors
    assert "exitcode  : 143" in errors
    last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    state = Run(folder).load_state()
    assert state is not None
    assert state.position["step"] == last["step"]


def test_processes_that_find_different_saves_do_not_go_on(
    signalled: tuple[Path, str], tmp_path: Path
) -> None:
    for rank in "01":
        copytree(signalled[0], tmp_path / rank)
    (tmp_path / "1" / "state-before.safetensors").replace(tmp_path / "1" / "state.safetensors")
    resume = f"{sys.executable} -m capsnet train --device cpu --no-report --resume {tmp_path}/$RANK"
    done = subprocess.run(
        [*LAUNCH, "--nproc-per-node", "2", "--no-python", "sh", "-c", f"exec {resume}"],
        capture_output=True, text=True, check=False, timeout=HUNG,
    )  # fmt: skip
    assert done.returncode != 0
    assert "the processes found different saves" in done.stderr
    assert "[rank" not in done.stderr


def test_several_processes_must_be_told_where_to_write(
    fresh: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in (("WORLD_SIZE", "2"), ("RANK", "0")):
        monkeypatch.setenv(name, value)
    done = subprocess.run(command(1, *fresh), capture_output=True, text=True, check=False, timeout=HUNG)
    assert done.returncode == 2
    assert "several processes write one run: say with --out which folder that is" in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.skipif(torch.accelerator.is_available(), reason="would be trained there")
def test_accelerate_launch_connects_its_processes_too(tmp_path: Path, fresh: tuple[str, ...]) -> None:
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "-m", "capsnet"]
    run([*launch, "train", "--no-report", *fresh, "--out", str(tmp_path / "run")])
    assert json.loads((tmp_path / "run" / "result.json").read_text())["processes"] == 2


def test_processes_that_do_not_know_of_each_other_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(CapsnetError, match="2 processes were launched and are not connected"):
        _check_launch(processes=1)


def workers_of(parent: int) -> list[int]:
    found = subprocess.run(
        ["pgrep", "-P", str(parent)], capture_output=True, text=True, check=False
    ).stdout.split()
    return [int(child) for child in found]
