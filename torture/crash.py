"""Test kills, signals, full or read-only disks, damaged files, shared runs."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import copytree, rmtree

from capsnet._support.files import is_leftover
from capsnet.training.checkpoint import BEFORE, NEWEST
from torture.launch import launch, small_training
from torture.part import Part, Trial

ABOUT = """`capsnet train` trains a small network with a checkpoint every 10 steps and one thread. The run is stopped in
each of the ways below and resumed with `--resume`. Then its last weights are compared, byte by byte, with those of an
uninterrupted run. A run counts as lost if it cannot be resumed or ends with different weights. A refusal counts as lost
if it is not one line with exit code 2."""


class Training:
    """Hold one small training that the trials repeat."""

    def __init__(self, work: Path, steps: int) -> None:
        self.work, self.log = work, work / "log"
        self.options = small_training(work, steps)
        for name in ("first", "whole"):  # the time of the first one includes the start of the fork server
            started = time.monotonic()
            whole = launch(self.log, "train", *self.options, "--no-report", "--out", work / name)
            assert whole.wait() == 0, whole.said
        self.weights = (work / "whole" / "model.safetensors").read_bytes()
        self.seconds = time.monotonic() - started

    def command(self, run: Path, *more: str) -> list[object]:
        """Return the user's command: resume the run if it exists, else start it."""
        if (run / "config.json").exists():
            return ["train", "--resume", run, *more]
        return ["train", *self.options, "--out", run, *more]

    def is_same(self, run: Path) -> bool:
        """Return whether the run ended with the weights of the uninterrupted run."""
        path = run / "model.safetensors"
        return path.exists() and path.read_bytes() == self.weights

    def ends_well(self, run: Path) -> bool:
        """Resume the run to its end; return whether it ended with the right weights."""
        return launch(self.log, *self.command(run, "--no-report")).wait() == 0 and self.is_same(run)

    def stopped(self, run: Path) -> Path:
        """Stop a run after two checkpoints."""
        process = launch(self.log, *self.command(run, "--no-report"))
        while process.process.is_alive() and not (run / BEFORE).exists():
            time.sleep(0.001)
        assert process.process.pid is not None
        os.kill(process.process.pid, signal.SIGTERM)
        assert process.wait() == 143, process.said
        return run


def make(work: Path, short: bool) -> Sequence[Trial]:
    """Run all trials of this part."""
    training = Training(work, 60 if short else 200)
    chance = random.Random(0)
    trials = [
        _kills(training, chance, 2 if short else 120),
        _signals(training, chance, signal.SIGTERM, 1 if short else 20),
        _signals(training, chance, signal.SIGINT, 1 if short else 20),
        _damage(training, chance, 2 if short else 30),
        _second_process(training, 1 if short else 5),
    ]
    if _can_mount(work):
        trials += [_full_disk(training, 1 if short else 20), _read_only(training)]
    return trials


def _kills(training: Training, chance: random.Random, wanted: int) -> Trial:
    killed = lost = finished = in_a_save = 0
    while killed < wanted:
        run = training.work / f"killed-{finished + lost}"
        while True:
            process = launch(training.log, *training.command(run, "--no-report"))
            process.process.join(chance.random() * training.seconds)
            process.process.kill()
            code = process.wait()
            if code != -signal.SIGKILL:
                break
            killed += 1
            in_a_save += run.is_dir() and any(
                is_leftover(entry) and "state" in entry.name for entry in run.iterdir()
            )
        if code == 0 and training.is_same(run):
            finished += 1
        else:
            lost += 1
        rmtree(run)
    note = f"{finished} runs finished after {killed} kills, {in_a_save} of them in the middle of a save"
    return Trial("`kill -9` at a random moment, then `--resume`: the same weights", killed, lost, note)


def _signals(training: Training, chance: random.Random, number: signal.Signals, wanted: int) -> Trial:
    tried = lost = on_time = 0
    while tried < wanted:
        run = training.work / f"{number.name}-{tried}"
        process = launch(training.log, *training.command(run, "--no-report"))
        process.process.join((0.2 + 0.8 * chance.random()) * training.seconds)
        with suppress(ProcessLookupError):
            if process.process.is_alive() and process.process.pid is not None:
                os.kill(process.process.pid, number)
        code = process.wait()
        saved = "interrupted; resume with" in process.said
        on_time += saved
        # before the training starts, SIGTERM ends the process by default, and Ctrl-C ends it with one line
        right = code in ((128 + number, 0) if saved else (128 + number, -number, 0))
        lost += not (right and "Traceback" not in process.said and training.ends_well(run))
        tried += 1
        rmtree(run, ignore_errors=True)
    note = f"{on_time} came while it trained: saved, exit code {128 + number}"
    return Trial(f"{number.name} at a random moment: saved, resumed, the same weights", tried, lost, note)


def _damage(training: Training, chance: random.Random, wanted: int) -> Trial:
    stopped = training.stopped(training.work / "stopped")
    lost = 0
    for number in range(wanted):
        run = copytree(stopped, training.work / "damaged")
        content = bytearray((run / NEWEST).read_bytes())
        if number % 2:
            del content[chance.randrange(len(content)) :]
        else:  # half of these flips are in the header, which holds names, shapes and the position
            where = chance.randrange(4096 if number % 4 else len(content))
            content[where] ^= 1 << chance.randrange(8)
        (run / NEWEST).write_bytes(content)
        both = number == wanted - 1
        if both:
            (run / BEFORE).write_bytes(content)
            process = launch(training.log, *training.command(run, "--no-report"))
            process.wait()
            lost += not process.ended_in_one_line("damaged", "start again")
        else:
            well = training.ends_well(run)
            lost += not (well and "damaged" in training.log.read_text())
        rmtree(run)
    what = (
        "the last checkpoint cut short or with one flipped bit: noticed; resumed from the one before, to the same "
        "weights"
    )
    return Trial(what, wanted, lost, "in the last try both saves are damaged: refused in one line")


def _second_process(training: Training, wanted: int) -> Trial:
    lost = 0
    for number in range(wanted):
        run = training.work / f"shared-{number}"
        first = launch(training.log, *training.command(run, "--no-report"))
        while first.process.is_alive() and not (run / "config.json").exists():
            time.sleep(0.001)
        assert first.process.pid is not None
        os.kill(first.process.pid, signal.SIGSTOP)  # keep it alive until the second process starts
        for how in (["train", "--resume", run], ["train", *training.options, "--out", run]):
            second = launch(training.work / "second", *how)
            second.wait()
            lost += not second.ended_in_one_line("in use by another process")
        os.kill(first.process.pid, signal.SIGCONT)
        lost += not (first.wait() == 0 and training.is_same(run))
    return Trial("a second process on a run's folder: refused, the first ends as always", 2 * wanted, lost)


def _full_disk(training: Training, wanted: int) -> Trial:
    lost = refused = 0
    at: dict[str, int] = {}
    with _disk(training.work / "full") as disk:
        training.stopped(disk / "run")
        copytree(disk / "run", training.work / "before-full")
        # free space from none to all that a finished run with its report needs
        need = 3 * (disk / "run" / NEWEST).stat().st_size + 3_000_000
        for number in range(wanted):
            _fill(disk, need * number // wanted)
            process = launch(training.log, *training.command(disk / "run"))
            code = process.wait()
            if code != 0:
                refused += 1
                lost += not process.ended_in_one_line("No space left on device", "free some space")
                name = next((line for line in process.said.split() if line.startswith(str(disk))), "")
                at[Path(name.rstrip(":")).name] = at.get(Path(name.rstrip(":")).name, 0) + 1
            (disk / "filler").unlink()
            lost += not training.ends_well(disk / "run")
            rmtree(disk / "run")
            copytree(training.work / "before-full", disk / "run")
    where = ", ".join(f"{name} {count}" for name, count in sorted(at.items()))
    note = f"{refused} times the disk filled up, while writing: {where}"
    return Trial(
        "a disk that fills up during the run: one line, and resumed when there is room", wanted, lost, note
    )


def _read_only(training: Training) -> Trial:
    lost = 0
    with _disk(training.work / "locked") as disk:
        training.stopped(disk / "run")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        for how in (["train", "--resume", disk / "run"], ["train", *training.options, "--out", disk / "new"]):
            process = launch(training.log, *how)
            process.wait()
            lost += not process.ended_in_one_line("Read-only file system", "make it writable")
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        lost += not training.ends_well(disk / "run")
    return Trial("a folder that cannot be written: one line, and resumed when it can", 2, lost)


def _fill(disk: Path, room: int) -> None:
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    with (disk / "filler").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, free - room))


@contextmanager
def _disk(at: Path) -> Iterator[Path]:
    at.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(at)], check=True)
    try:
        yield at
    finally:
        subprocess.run(["umount", str(at)], check=True)


def _can_mount(work: Path) -> bool:
    try:
        with _disk(work / "probe"):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


PART = Part("crash", "Crashes", ABOUT, make)
