"""Several processes, connected by gloo: the same training, whatever their number and whoever is killed."""

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

#: Divisible by all numbers of processes that are tried.
BATCH = 12
#: Relative difference of losses; sums over processes are rounded in another order.
CLOSE = 1e-4
SECONDS = 300


def make(work: Path, short: bool) -> Sequence[Trial]:
    """Compare everything with what one process does."""
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
    """One small training, by any number of processes."""

    def __init__(self, work: Path, steps: int) -> None:
        self.work, self.steps = work, steps
        self.options = [*small_training(work, steps), "--batch-size", str(BATCH)]
        self.train(1, work / "whole")
        self.losses = _losses(work / "whole")

    def start(self, processes: int, *arguments: object, module: str = "capsnet") -> subprocess.Popen[bytes]:
        """A launch whose output goes to `work`/log; one thread for each process."""
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
        """From the beginning to the end."""
        self._end(self.begin(processes, run))

    def resume(self, processes: int, run: Path) -> None:
        """From the last save to the end."""
        self._end(self.start(processes, "train", "--resume", run, "--no-report"))

    def difference(self, run: Path) -> float:
        """Largest relative difference of a loss from that of one process; ∞ if a step's is missing.

        Each line is the mean over the steps since the line before; one more is written where a training was stopped.
        The means of ten steps are put together again from them.
        """
        if not (run / "model.safetensors").exists():
            return float("inf")
        losses = _losses(run)
        if losses.keys() != self.losses.keys():
            return float("inf")
        return max(abs(losses[step] / loss - 1) for step, loss in self.losses.items())

    def agree(self, numbers: Sequence[int]) -> Trial:
        """The losses of one process from several."""
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
        """Which examples the processes of a launch see, step by step."""
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
        """Go on with another number of processes."""
        differences = []
        for before, after in pairs:
            run = self.work / f"{before}-then-{after}"
            self._interrupt(before, run, _ask)
            self.resume(after, run)
            differences.append(self.difference(run))
        return _compared(
            "trainings taken up by another number of processes: the losses of one",
            differences,
            ", ".join(f"{before} → {after}" for before, after in pairs),
        )

    def killed(self, kills: int) -> Trial:
        """`kill -9` of one worker, then go on with one or two processes."""
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
            "run goes on to the losses of one process",
            differences,
            "",
            silent,
        )

    def asked_to_end(self, times: int) -> Trial:
        """SIGTERM to the launcher."""
        differences, unsaid = [], 0
        for number in range(times):
            run = self.work / f"asked-{number}"
            _, said = self._interrupt(2, run, _ask)
            unsaid += said.count("interrupted; resume with") != 1 or "]: Traceback" in said
            self.resume(2, run)
            differences.append(self.difference(run))
        return _compared(
            "SIGTERM to the launcher of two processes: saved, said how to go on, and gone on with",
            differences,
            "",
            unsaid,
        )

    def _interrupt(
        self, processes: int, run: Path, stop: Callable[[subprocess.Popen[bytes]], None]
    ) -> tuple[int, str]:
        """A training that was stopped after its first save: the launch's exit code, and what it said."""
        while True:
            job = self.begin(processes, run)
            while job.poll() is None and not (run / NEWEST).exists():
                time.sleep(0.005)
            stop(job)
            code = job.wait(SECONDS)
            if not (run / "result.json").exists():
                return code, (self.work / "log").read_text(errors="replace")
            rmtree(run)  # it was faster: once more

    def _end(self, job: subprocess.Popen[bytes]) -> None:
        if job.wait(SECONDS):
            said = (self.work / "log").read_text(errors="replace")
            raise RuntimeError(f"a launch ended with exit code {job.returncode}: {said[-2000:]}")


def _ask(job: subprocess.Popen[bytes]) -> None:
    job.send_signal(signal.SIGTERM)


def _losses(run: Path) -> dict[int, float]:
    """Step → mean loss of the ten steps up to it."""
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
    "`capsnet train` under `torchrun` on this machine, its processes connected by gloo, a small network with a save "
    f"every 10 steps. Losses count as the same if they differ by less than {CLOSE:.0e}, relatively: sums over "
    "processes are rounded in another order. The uninterrupted training by one process is the measure of all.",
    make,
)
