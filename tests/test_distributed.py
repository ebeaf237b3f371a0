"""Several processes are the same training as one. How they share other work: tests/cli, tests/inference."""

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
from torture.launch import Launched, children, launch

from capsnet._support.errors import CapsnetError
from capsnet.training.run import Run
from capsnet.training.step import _check_launch
from command import Command
from ranks import launch_ranks

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


def train(*arguments: object) -> list[str]:
    return ["train", "--device", "cpu", "--no-report", *map(str, arguments)]


def torchrun(*arguments: object) -> list[str]:
    return [*LAUNCH, "--nproc-per-node", "2", "-m", "capsnet", *train(*arguments)]


def run(arguments: list[str]) -> None:
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=HUNG)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, fresh: tuple[str, ...]) -> Path:
    """The training of one process."""
    folder = tmp_path_factory.mktemp("whole")
    alone = launch(folder / "log", *train(*fresh, "--out", folder / "run"))
    assert alone.wait(HUNG) == 0, alone.said
    return folder / "run"


def losses(folder: Path) -> list[float]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def test_two_processes_are_the_same_training_as_one(
    tmp_path: Path, fresh: tuple[str, ...], whole: Path
) -> None:
    for process in launch_ranks(tmp_path, 2, *train(*fresh, "--out", tmp_path / "two")):
        assert process.wait(HUNG) == 0, process.said
    np.testing.assert_allclose(losses(tmp_path / "two"), losses(whole), rtol=1e-4)
    one, two = (load_file(folder / "model.safetensors") for folder in (whole, tmp_path / "two"))
    for name in one:
        np.testing.assert_allclose(two[name], one[name], rtol=1e-2, atol=1e-3)
    assert json.loads((tmp_path / "two" / "result.json").read_text())["processes"] == 2


@pytest.mark.slow
@pytest.mark.skipif(torch.accelerator.is_available(), reason="would be trained there")
def test_torchrun_connects_its_processes_where_all_devices_are_cpus(
    tmp_path: Path, fresh: tuple[str, ...]
) -> None:
    arguments = torchrun(*fresh, "--out", tmp_path / "two")
    arguments.remove("--device")
    arguments.remove("cpu")
    run(arguments)
    assert json.loads((tmp_path / "two" / "result.json").read_text())["processes"] == 2


@pytest.mark.slow
def test_a_killed_worker_ends_the_job_and_one_process_can_resume_it(
    tmp_path: Path, fresh: tuple[str, ...], whole: Path
) -> None:
    arguments = torchrun(*fresh, "--out", tmp_path / "killed", "--save-seconds", 0)
    job = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
    state = tmp_path / "killed" / "state.safetensors"
    deadline = time.monotonic() + HUNG
    while not state.exists() and job.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    for worker in children(job.pid)[-1:]:
        os.kill(worker, signal.SIGKILL)
    _, errors = job.communicate(timeout=HUNG)
    if job.returncode:  # it may have ended before the kill arrived
        assert "SIGKILL" in errors
        assert f"capsnet train --resume {tmp_path / 'killed'}" in errors
        assert "[rank0]: Traceback" not in errors
        resumed = launch(tmp_path / "log", "train", "--resume", tmp_path / "killed", "--no-report")
        assert resumed.wait(HUNG) == 0, resumed.said
    np.testing.assert_allclose(losses(tmp_path / "killed"), losses(whole), rtol=1e-4)


@pytest.fixture(scope="module")
def signalled(
    tmp_path_factory: pytest.TempPathFactory, fresh: tuple[str, ...]
) -> tuple[Path, list[Launched]]:
    """A run of two processes, the second of which got SIGTERM on the way."""
    logs = tmp_path_factory.mktemp("signalled")
    options = ("--steps", 10_000, "--evaluate-every", 0, "--save-seconds", 0, "--out", logs / "run")
    processes = launch_ranks(logs, 2, *train(*fresh, *options))
    deadline = time.monotonic() + HUNG
    while not (logs / "run" / "state-before.safetensors").exists() and processes[0].process.is_alive():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    processes[1].process.terminate()
    return logs / "run", processes


def test_a_signal_to_one_process_stops_all_after_the_same_step(
    signalled: tuple[Path, list[Launched]],
) -> None:
    folder, processes = signalled
    assert [process.wait(HUNG) for process in processes] == [143, 143]
    said = "".join(process.said for process in processes)
    assert said.count(f"interrupted; resume with: capsnet train --resume {folder}") == 1
    assert "Traceback" not in said
    last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    state = Run(folder).load_checkpoint()
    assert state is not None
    assert state.position["step"] == last["step"]


def test_ranks_with_different_checkpoints_refuse_to_resume(
    signalled: tuple[Path, list[Launched]], tmp_path: Path
) -> None:
    folder, processes = signalled
    assert processes[0].wait(HUNG) == 143
    for rank in "01":
        copytree(folder, tmp_path / rank)
    (tmp_path / "1" / "state-before.safetensors").replace(tmp_path / "1" / "state.safetensors")
    for process in launch_ranks(tmp_path, 2, "train", "--no-report", "--resume", tmp_path / "{rank}"):
        assert process.wait(HUNG) == 2, process.said
        assert "the processes found different checkpoints" in process.said
        assert "Traceback" not in process.said


def test_several_processes_need_out(
    fresh: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsnet: Command
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in (("WORLD_SIZE", "2"), ("RANK", "0")):
        monkeypatch.setenv(name, value)
    done = capsnet(*train(*fresh))
    assert done.code == 2
    assert "several processes write one run; choose its folder with --out" in done.err
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
@pytest.mark.skipif(torch.accelerator.is_available(), reason="would be trained there")
def test_accelerate_launch_connects_its_processes_too(tmp_path: Path, fresh: tuple[str, ...]) -> None:
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "-m", "capsnet"]
    run([*launch, "train", "--no-report", *fresh, "--out", str(tmp_path / "run")])
    assert json.loads((tmp_path / "run" / "result.json").read_text())["processes"] == 2


def test_unconnected_processes_of_one_launch_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(CapsnetError, match="2 processes were launched and are not connected"):
        _check_launch(processes=1)
