"""The commands that docs/runs.md gives for several processes: torchrun and capsnet understand them, and they run."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from torch.distributed.run import get_args_parser

from capsnet.cli import app

PAGE = (Path(__file__).parents[2] / "docs" / "runs.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^ {4}(?:srun )?(torchrun .*)$", PAGE.replace("\\\n", " "), flags=re.MULTILINE)


def test_the_page_has_commands_for_one_machine_several_machines_and_slurm() -> None:
    asked = [(line.count("--nnodes"), line.count("$HEAD"), capsnet(line)[0]) for line in COMMANDS]
    for where in ((0, 0), (1, 0), (1, 1)):
        assert {command for *found, command in asked if tuple(found) == where} == {
            "train", "evaluate", "predict"
        }  # fmt: skip
    assert len(COMMANDS) == PAGE.count("torchrun --")


def capsnet(line: str) -> list[str]:
    """What torchrun hands on to capsnet."""
    asked = get_args_parser().parse_args(shlex.split(line)[1:])
    assert asked.module
    assert asked.training_script == "capsnet"
    return list(asked.training_script_args)


@pytest.mark.parametrize("line", COMMANDS)
def test_torchrun_and_capsnet_accept_the_command(line: str) -> None:
    name, *arguments = capsnet(line)
    command = typer.main.get_command(app).commands[name]
    command.make_context(name, list(arguments))  # refuses options that are not there
    assert "--resume" in arguments or name != "train" or "--out" in arguments


@pytest.mark.slow
def test_the_commands_of_the_page_run_on_one_machine(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (3, 28, 28), np.uint8)
    for folder in (tmp_path / "pictures", tmp_path / "shared" / "pictures"):
        folder.mkdir(parents=True)
        for number, pixels in enumerate(noise):
            Image.fromarray(pixels).save(folder / f"{number}.png")
    small = "--data mnist5k --steps 2 --stem-channels 8 --primary-types 2 --no-report"
    for line in COMMANDS:
        here = line.replace("--nproc-per-node 4", "--nproc-per-node 2").replace("--nnodes 2", "--nnodes 1")
        here = re.sub(r"(HOST|\$HEAD):29500", "localhost:0", here)
        here = re.sub(r"/shared", str(tmp_path / "shared"), here)
        here = re.sub(r"--data mnist\w*", small, here)
        if capsnet(here)[0] == "train" and (tmp_path / "shared" / "runs").exists() and "$HEAD" in line:
            continue  # what SLURM runs is what was run before
        if "--device" not in here:
            here += " --device cpu"
        done = subprocess.run(
            [sys.executable, "-m", "torch.distributed.run", *shlex.split(here)[1:]],
            capture_output=True, text=True, check=False, timeout=600, cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert done.returncode == 0, (here, done.stderr)
    assert (tmp_path / "answers.jsonl").read_bytes().count(b"\n") == len(noise)
    assert (tmp_path / "shared" / "answers.jsonl").read_bytes().count(b"\n") == len(noise)
