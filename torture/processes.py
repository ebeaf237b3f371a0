"""Test distributed training: equal results for any number of ranks."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from shutil import rmtree

from capsnet._support.files import read_json
from capsnet.training.batches import BatchSchedule
from capsnet.training.checkpoint import NEWEST
from capsnet.training.loop import LOG_EVERY
from torture.launch import children, small_training
from torture.part import Part, Trial

#: Batch size, divisible by all numbers of ranks tried.
BATCH = 12
#: Allowed relative difference of losses: sums over ranks are rounded in another order.
CLOSE = 1e-4
SECONDS = 300


def make(work: Path, short: bool) -> Sequence[Trial]:
    """Run all trials; the training by one process is the reference."""
    several = Several(work, steps=40 if short else 100)
    pairs = [(2, 1)] if short else [(1, 2), (2, 1), (2, 3), (3, 2), (1, 4), (4, 1)]
    return [
        several.agree([2] if short else [2, 3, 4]),
        several.share([2] if short else [2, 3, 4]),
        several.change(pairs),
        several.killed(1 if short else 20),
        several.asked_to_end(1 if short else 5),
    ]


class Several:
    """Hold one small training that any number of processes can run."""

    def __init__(self, work: Path, steps: int) -> None:
        self.work, self.steps = work, steps
        self.options = [*small_training(work, steps), "--batch-size", str(BATCH)]
        self.train(1, work / "whole")
        self.losses = _losses(work / "whole")

    def start(self, processes: int, *arguments: object, module: str = "capsnet") -> subprocess.Popen[bytes]:
        """Launch processes with one thread each; their output goes to `work`/log."""
        launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
        launch += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", "-m", module]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        with (self.work / "log").open("wb") as log:
            return subprocess.Popen(
                [*launch, *map(str, arguments)], stdout=log, stderr=subprocess.STDOUT, env=environment
            )

    def begin(self, processes: int, run: Path) -> subprocess.Popen[bytes]:
        """Start the training."""
        return self.start(processes, "train", *self.options, "--no-report", "--out", run)

    def train(self, processes: int, run: Path) -> None:
        """Run the training from start to end."""
        self._end(self.begin(processes, run))

    def resume(self, processes: int, run: Path) -> None:
        """Resume the training from its last checkpoint to the end."""
        self._end(self.start(processes, "train", "--resume", run, "--no-report"))

    def difference(self, run: Path) -> float:
        """Return the largest relative difference of a loss to that of one process.

        Each line of metrics is a mean over the steps since the line before, and a stopped training writes an extra
        line. The means of ten steps are computed from these lines.
        """
        if not (run / "model.safetensors").exists():
            return float("inf")
        losses = _losses(run)
        if losses.keys() != self.losses.keys():
            return float("inf")
        return max(abs(losses[step] / loss - 1) for step, loss in self.losses.items())

    def agree(self, numbers: Sequence[int]) -> Trial:
        """Compare the losses of several processes with those of one."""
        differences = []
        for processes in numbers:
            self.train(processes, run := self.work / f"by-{processes}")
            differences.append(self.difference(run))
        said = ", ".join(f"{number}: {off:.0e}" for number, off in zip(numbers, differences, strict=True))
        return _compared(
            "trainings by several processes: the losses of one with the same batch",
            differences,
            f"largest relative difference in {self.steps} steps of {BATCH} by {said}",
        )

    def share(self, numbers: Sequence[int]) -> Trial:
        """Check that in each step the ranks share the planned batch."""
        wrong = 0
        for processes in numbers:
            (seen := self.work / f"seen-{processes}").mkdir()
            run = self.work / f"noted-{processes}"
            arguments = (seen, "train", *self.options, "--no-report", "--out", run)
            self._end(self.start(processes, *arguments, module="torture.noting"))
            shares = [
                [line.split() for line in (seen / f"{rank}.txt").read_text().splitlines()]
                for rank in range(processes)
            ]
            config = read_json(run / "config.json")["training"]
            plan = BatchSchedule(config["seed"], 64, 2, BATCH, self.steps)
            for step, share in enumerate(zip(*shares, strict=True)):
                epoch, place = divmod(step, plan.steps_per_epoch)
                planned = plan.epoch(epoch)[0][place * BATCH : (place + 1) * BATCH].tolist()
                wrong += sorted(int(index) for part in share for index in part) != sorted(planned)
        return Trial(
            "steps of several processes: each example of the planned batch in exactly one of them",
            self.steps * len(numbers),
            wrong,
        )

    def change(self, pairs: Sequence[tuple[int, int]]) -> Trial:
        """Resume with another number of processes."""
        differences = []
        for before, after in pairs:
            run = self.work / f"{before}-then-{after}"
            self._interrupt(before, run, _ask)
            self.resume(after, run)
            differences.append(self.difference(run))
        return _compared(
            "trainings resumed by another number of processes: the losses of one",
            differences,
            ", ".join(f"{before} → {after}" for before, after in pairs),
        )

    def killed(self, kills: int) -> Trial:
        """Kill one rank with SIGKILL, then resume with one or two processes."""
        chance, silent = random.Random(0), 0
        differences: list[float] = []

        def kill(job: subprocess.Popen[bytes]) -> None:
            time.sleep(chance.uniform(0, 0.5))
            if workers := children(job.pid):
                with suppress(ProcessLookupError):
                    os.kill(chance.choice(workers), signal.SIGKILL)

        for number in range(kills):
            run = self.work / f"killed-{number}"
            code, said = self._interrupt(2, run, kill)
            silent += code == 0 or "SIGKILL" not in said or "]: Traceback" in said
            self.resume(chance.choice([1, 2]), run)
            differences.append(self.difference(run))
        return _compared(
            "`kill -9` of one of two processes at a random moment: the launch ends and names the signal, and the "
            "run resumes, to the losses of one process",
            differences,
            "",
            silent,
        )

    def asked_to_end(self, times: int) -> Trial:
        """Send SIGTERM to the launcher, then resume."""
        differences, unsaid = [], 0
        for number in range(times):
            run = self.work / f"asked-{number}"
            _, said = self._interrupt(2, run, _ask)
            unsaid += said.count("interrupted; resume with") != 1 or "]: Traceback" in said
            self.resume(2, run)
            differences.append(self.difference(run))
        return _compared(
            "SIGTERM to the launcher of two processes: saved, and resumed as the message says",
            differences,
            "",
            unsaid,
        )

    def _interrupt(
        self, processes: int, run: Path, stop: Callable[[subprocess.Popen[bytes]], None]
    ) -> tuple[int, str]:
        """Stop a training after its first checkpoint; return exit code and output."""
        while True:
            job = self.begin(processes, run)
            while job.poll() is None and not (run / NEWEST).exists():
                time.sleep(0.005)
            stop(job)
            code = job.wait(SECONDS)
            if not (run / "result.json").exists():
                return code, (self.work / "log").read_text(errors="replace")
            rmtree(run)  # the training finished first: try again

    def _end(self, job: subprocess.Popen[bytes]) -> None:
        if job.wait(SECONDS):
            said = (self.work / "log").read_text(errors="replace")
            raise RuntimeError(f"a launch ended with exit code {job.returncode}: {said[-2000:]}")


def _ask(job: subprocess.Popen[bytes]) -> None:
    job.send_signal(signal.SIGTERM)


def _losses(run: Path) -> dict[int, float]:
    """Return the mean loss of each ten steps, by last step."""
    sums: dict[int, float] = {}
    before = 0
    for line in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()):
        if "loss" in line:
            end = -(-line["step"] // LOG_EVERY) * LOG_EVERY
            sums[end] = sums.get(end, 0.0) + line["loss"] * (line["step"] - before) / LOG_EVERY
            before = line["step"]
    return sums


def _compared(what: str, differences: Sequence[float], note: str, also_lost: int = 0) -> Trial:
    lost = sum(not difference <= CLOSE for difference in differences)
    note = note or f"largest relative difference of a loss {max(differences):.0e}"
    return Trial(what, len(differences), max(lost, also_lost), note)


PART = Part(
    "processes",
    "Several processes",
    "`capsnet train` runs under `torchrun` on this machine, with gloo, a small network and a checkpoint every 10 "
    "steps. All results are compared with an uninterrupted training by one process. Losses count as equal if their "
    f"relative difference is below {CLOSE:.0e}, because sums over ranks are rounded in another order.",
    make,
)
