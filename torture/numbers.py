"""Test NaN and infinite values, randomness and the system clock."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from shutil import rmtree
from typing import Any, get_args

import torch
from safetensors.torch import load_file

from capsnet import CapsNet
from capsnet._support import dispatch
from capsnet._support.files import parse_json
from capsnet.data import load
from capsnet.inference.evaluation import evaluate
from capsnet.training.batches import BatchSchedule, augmented
from capsnet.training.checkpoint import BEFORE, NEWEST, save_checkpoint
from capsnet.training.run import Run
from torture.crash import Training
from torture.launch import launch
from torture.part import Part, Trial
from torture.trouble import Trouble, What, WildClock, fingerprint

ABOUT = """The small trainings of the part "Crashes" are repeated with far too high learning rates, with one NaN,
infinity or overflow injected into one step, with checkpoints that contain NaN, in new processes, and with a system
clock that jumps by years at every call. All files are searched for NaN and infinity: JSON, tensors and the text of the
report. Weights are compared byte by byte with those of an undisturbed run."""


#: Cases of a short run: (rate above 1, policy, schedule).
SHORT_RATES = {(False, "stop", "constant"), (True, "skip", "one-cycle")}


def make(work: Path, short: bool) -> Sequence[Trial]:
    """Run all trials of this part."""
    training = Training(work, 30 if short else 100)
    chance = random.Random(0)
    return [
        _learning_rates(training, [1e-2, 1e15] if short else [1e-2, 1.0, 1e3, 1e6, 1e12, 1e20, 3e38], short),
        _one_broken_step(training, chance, ("loss", "moments") if short else get_args(What), short),
        _spoiled_saves(training, 1 if short else 10, chance),
        _afresh(training, 1 if short else 6),
        _batch_sizes(8 if short else 200),
        _clock(training, chance, 1 if short else 15),
    ]


def _learning_rates(training: Training, rates: Sequence[float], short: bool) -> Trial:
    lost = ended = tried = 0
    for rate, policy, schedule in product(rates, ("stop", "skip"), ("constant", "one-cycle")):
        if short and (rate > 1, policy, schedule) not in SHORT_RATES:
            continue
        run = training.work / f"rate-{tried}"
        how = ["--lr", rate, "--on-nonfinite", policy, "--schedule", schedule, "--out", run]
        if short:
            how.append("--no-report")
        process = launch(training.log, "train", *training.options, *how)
        code, tried = process.wait(), tried + 1
        if code != 0:
            ended += 1
            lost += not process.ended_in_one_line("not finite", "--learning-rate")
            lost += (run / "result.json").exists() or (run / "model.safetensors").exists()
        lost += not only_numbers(run)
        rmtree(run)
    note = f"{tried - ended} trained on, {ended} ended: learning rates from {rates[0]:g} to {rates[-1]:g}"
    return Trial(
        "a learning rate ten times too high, and worse: trains on, or ends in one line; never NaN in a file",
        tried,
        lost,
        note,
    )


def _one_broken_step(training: Training, chance: random.Random, kinds: Sequence[Any], short: bool) -> Trial:
    lost = tried = replayed = 0
    for what, policy in product(kinds, ("stop", "skip")):
        if short and (what, policy) == ("moments", "skip"):
            continue
        run, seen = training.work / f"broken-{tried}", training.work / "seen"
        trouble = Trouble(what, chance.randrange(12, 28), seen)
        options = ["--on-nonfinite", policy, "--no-report", "--out", run]
        process = launch(training.log, "train", *training.options, *options, before=trouble)
        code, tried = process.wait(), tried + 1
        lost += not only_numbers(run)
        is_left_out = what not in ("weights", "moments")
        if is_left_out:
            replayed += 1
            lost += not _is_replayable(run, trouble)
        if is_left_out and policy == "skip":
            result = Run(run).result()
            lost += not (code == 0 and result is not None and result["steps_left_out"] == 1)
            continue
        lost += not process.ended_in_one_line("not finite", "is kept")
        if policy == "stop" and not short:  # with the same injected value, it must stop again
            before = Run(run).nonfinite()
            again = launch(training.log, "train", "--resume", run, before=trouble)
            again.wait()
            lost += not (
                again.ended_in_one_line("not finite") and (not is_left_out or Run(run).nonfinite() == before)
            )
        lost += not training.ends_well(run)  # without the injected value it must finish
    note = f"{replayed} batches built again from the log: the same bits"
    what = "one loss, gradient, weight or moment NaN, infinite or too large: left out, or stopped and resumed"
    return Trial(f"{what} to the weights of an undisturbed run", tried, lost, note)


def _is_replayable(run: Path, trouble: Trouble) -> bool:
    """Return whether a skipped step's batch can be rebuilt (docs/runs.md)."""
    opened = Run(run)
    config, events = opened.training(), opened.nonfinite()
    if [event["step"] for event in events] != [trouble.at]:
        return False
    source = augmented(load(config.data).train, config)
    batch = BatchSchedule.of(config, source).batch(source, events[0]["step"])
    return fingerprint(batch) == trouble.seen.read_text()


def _spoiled_saves(training: Training, wanted: int, chance: random.Random) -> Trial:
    lost = 0
    for number in range(wanted):
        run = training.stopped(training.work / f"spoiled-{number}")
        state = Run(run).load_checkpoint()
        assert state is not None
        names = sorted(
            name for name, tensor in state.tensors.items() if tensor.ndim and tensor.is_floating_point()
        )
        tensor = state.tensors[chance.choice(names)].view(-1)
        tensor[chance.randrange(len(tensor))] = chance.choice((torch.nan, torch.inf, -torch.inf))
        save_checkpoint(run, state.tensors, state.position, keep_newest=False)
        assert (run / BEFORE).exists()
        lost += not (training.ends_well(run) and f"{NEWEST} is damaged" in training.log.read_text())
    what = "one NaN or infinite number in a checkpoint with a right checksum: noticed; resumed from the one before"
    return Trial(what, wanted, lost)


def _afresh(training: Training, wanted: int) -> Trial:
    """Train in new processes, with other addresses and hash seeds."""
    lost = 0
    lines = _metrics(training.work / "whole")
    for number in range(wanted):
        run = training.work / f"afresh-{number}"
        if number % 2:  # only config.json is left of the run
            run.mkdir()
            (run / "config.json").write_bytes((training.work / "whole" / "config.json").read_bytes())
        command = [sys.executable, "-m", "capsnet", *map(str, training.command(run, "--no-report"))]
        environment = {**os.environ, "PYTHONHASHSEED": str(number), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, check=False)
        lost += not (done.returncode == 0 and training.is_same(run) and _metrics(run) == lines)
    what = "a training in a new process, or from its config.json alone: the same weights and figures"
    return Trial(what, wanted, lost, "byte by byte, times left out")


def _metrics(run: Path) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in line.items() if name != "images_per_second"}
        for line in Run(run).metrics()
    ]


def _batch_sizes(images: int) -> Trial:
    model = CapsNet.from_pretrained("capsnet-mnist")
    test = load("mnist5k").test.subset(torch.arange(images))  # type: ignore[attr-defined]
    whole, tried, lost, furthest = evaluate(model, test, 128).scores, 0, 0, 0.0
    for is_fast, size in product((True, False), (1, 7, 128)):
        if is_fast:
            scores = evaluate(model, test, size).scores
        else:
            with dispatch.disabled():
                scores = evaluate(model, test, size).scores
        tried += images
        lost += int((scores.argmax(1) != whole.argmax(1)).sum())
        furthest = max(furthest, float((scores - whole).abs().max()))
    what = "predictions in batches of 1, 7 and 128, on fast and plain paths: the same classes"
    return Trial(what, tried, lost + (furthest > 1e-5) * tried, f"scores differ by at most {furthest:.1e}")


def _clock(training: Training, chance: random.Random, wanted: int) -> Trial:
    lost = 0
    for number in range(wanted):
        run, started = training.work / f"clock-{number}", time.monotonic()
        process = launch(training.log, *training.command(run, "--no-report"), before=WildClock(number))
        while process.process.is_alive() and not (run / BEFORE).exists():
            time.sleep(0.001)
        process.process.kill()
        lost += process.wait() not in (0, -signal.SIGKILL)
        for path in run.iterdir():
            os.utime(path, (chance.uniform(0, 4e9),) * 2)
        process = launch(training.log, *training.command(run, "--no-report"), before=WildClock(-number))
        lost += not (
            process.wait() == 0
            and training.is_same(run)
            and _metrics(run) == _metrics(training.work / "whole")
        )
        result = Run(run).result() or {"seconds": -1.0}
        speeds = [line["images_per_second"] for line in Run(run).metrics() if "loss" in line]
        lost += not (
            0 < result["seconds"] <= time.monotonic() - started and all(speed > 0 for speed in speeds)
        )
    what = "the clock jumps by years, files get any date, `kill -9`, `--resume`: the same weights, true durations"
    return Trial(what, wanted, lost)


def only_numbers(run: Path) -> bool:
    """Return whether a run's files have no NaN or infinity."""
    try:
        for path in run.glob("*.json"):
            parse_json(path.read_text())
        for path in run.glob("*.jsonl"):
            for line in path.read_text().splitlines():
                parse_json(line)
    except (ValueError, json.JSONDecodeError):
        return False
    tensors = [tensor for path in run.glob("*.safetensors") for tensor in load_file(path).values()]
    words = " ".join(re.sub(r"base64,[\w+/=]+", "", page.read_text()) for page in run.glob("report/*.html"))
    said = re.search(r"(?<![A-Za-z-])(nan|inf|infinity)(?![A-Za-z-])", words, re.IGNORECASE)
    return said is None and all(bool(tensor.isfinite().all()) for tensor in tensors)


PART = Part("numbers", "Numbers, chance and the clock", ABOUT, make)
