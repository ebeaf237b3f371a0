"""A system clock that is set back, or jumps: nothing in a run depends on it. ruff bans clocks and dates in `src`."""

import itertools
import os
import random
import time
from pathlib import Path

import pytest
import torch

from capsnet import CapsNet, CapsnetError
from capsnet.training.checkpoint import save_checkpoint
from capsnet.training.loop import Interrupted, train
from capsnet.training.run import Run
from stripes import CONFIG, DATA, SMALL, StopAt, resume, run_training


@pytest.fixture
def wild(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look at the clock is years from the last, back as often as forth."""
    chance = random.Random(0)
    for name, unit in (("time", 1.0), ("time_ns", 10**9)):
        monkeypatch.setattr(time, name, lambda unit=unit: type(unit)(chance.uniform(-1e9, 4e9) * unit))


def date_all(folder: Path) -> None:
    """As if half of the files were written before 1971, and half in the next century."""
    for path, year in zip(sorted(folder.iterdir()), itertools.cycle((1, 130)), strict=False):
        os.utime(path, (year * 3e7, year * 3e7))


@pytest.mark.usefixtures("wild")
def test_a_jumping_clock_and_wrong_file_dates_change_nothing(tmp_path: Path) -> None:
    started = time.monotonic()
    folder = tmp_path / "run"
    torch.manual_seed(0)
    model = CapsNet(SMALL)
    with Run.create(folder, model, CONFIG) as run, pytest.raises(Interrupted):
        train(model, DATA, CONFIG, run, device="cpu", progress=StopAt(20))
    leftover = folder / ".state.safetensors.4711.tmp"
    leftover.write_bytes(b"half")
    date_all(folder)
    before = Run(folder).load_checkpoint().position["seconds"]
    with Run.reopen(folder), pytest.raises(CapsnetError, match="in use by another process"):
        Run.reopen(folder).__enter__()
    resume(folder)
    assert not leftover.exists()
    seconds = Run(folder).result()["seconds"]
    assert 0 < before < seconds <= time.monotonic() - started
    assert all(line["images_per_second"] > 0 for line in Run(folder).metrics() if "loss" in line)
    run_training(tmp_path / "whole")
    ends = [(path / "model.safetensors").read_bytes() for path in (folder, tmp_path / "whole")]
    assert ends[0] == ends[1]


def test_speed_is_finite_after_1e17_seconds_of_training(stopped_run: Path) -> None:
    """A float of 1e17 seconds holds no fraction of a second: a naive difference would be zero."""
    state = Run(stopped_run).load_checkpoint()
    save_checkpoint(stopped_run, state.tensors, {**state.position, "seconds": 1e17}, keep_newest=False)
    resume(stopped_run)
    speeds = [line["images_per_second"] for line in Run(stopped_run).metrics() if "loss" in line]
    assert all(0 < speed < 1e7 for speed in speeds)
    assert Run(stopped_run).result()["seconds"] >= 1e17
