"""Test `capsnet predict` and `evaluate` on many files: memory, order, crashes."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from torture.launch import children
from torture.part import Part, Trial

#: Seconds between two readings of a process's memory.
LOOK_EVERY = 0.2
#: Growth between the first and the last third of a run that counts as a leak, in MiB.
LEAK = 16


def make(work: Path, short: bool) -> Sequence[Trial]:
    """Check for constant memory, and for equal answers after kills."""
    many, few = (2_000, 600) if short else (200_000, 6_000)
    source = _pictures(work / "source", 512)
    large = _linked(work / "large", source, many)
    small = _linked(work / "small", source, few)
    return [
        _memory(large, work / "large.jsonl", many),
        *_crashes(small, work, few, kills=2 if short else 30),
        _evaluation(work, source, many, few),
    ]


def _memory(folder: Path, target: Path, number: int) -> Trial:
    started, looks = time.monotonic(), []
    process = _predict(folder, target)
    while process.poll() is None:
        if target.exists() and target.stat().st_size:  # everything is loaded
            looks += [look for look in (_resident(process.pid),) if look]
        time.sleep(LOOK_EVERY)
    seconds = time.monotonic() - started
    lines = target.read_bytes().count(b"\n") if target.exists() else 0
    third = max(1, len(looks) // 3)
    growth = float(np.median(looks[-third:]) - np.median(looks[:third])) if looks else float("inf")
    return Trial(
        "images classified by one process, in memory that does not grow",
        number,
        number - lines if lines != number else number * (growth > LEAK),
        f"RSS {max(looks, default=0):.0f} MiB at most, {growth:+.1f} MiB from the first third to the last; "
        f"{number / seconds:,.0f} images/s",
    )


def _crashes(folder: Path, work: Path, number: int, kills: int) -> list[Trial]:
    whole, shared, killed = (work / f"{name}.jsonl" for name in ("whole", "shared", "killed"))
    started = time.monotonic()
    _finish(_predict(folder, whole))
    seconds = time.monotonic() - started
    _finish(_predict(folder, shared, processes=2))
    chance, landed = random.Random(0), 0
    while landed < kills:
        process = _predict(folder, killed, processes=1 + landed % 2)
        try:
            _finish(process, chance.uniform(0.3, 1.0) * seconds)
            killed.unlink()  # it finished before the kill: start again
            killed.with_name(killed.name + ".about.json").unlink()
        except subprocess.TimeoutExpired:
            _kill(process)
            landed += 1
    _finish(_predict(folder, killed))
    expected = whole.read_bytes()
    return [
        Trial(
            "images classified by two processes, with the answers of one",
            number,
            number * (shared.read_bytes() != expected),
        ),
        Trial(
            "`kill -9` of one or two processes at a random moment; in the end the answers of an uninterrupted run",
            landed,
            landed * (killed.read_bytes() != expected),
            f"{number:,} images",
        ),
    ]


def _evaluation(work: Path, source: Sequence[Path], many: int, few: int) -> Trial:
    """Compare one process with two, and peak memory of many and few images."""
    folders = {number: _classes(work / f"classes-{number}", source, number) for number in (many, few)}
    started = time.monotonic()
    (counted, peak), (_, usual) = (_evaluate(folders[number]) for number in (many, few))
    seconds = time.monotonic() - started
    shared, _ = _evaluate(folders[few], processes=2)
    alone, _ = _evaluate(folders[few])
    right = counted["n"] == many and shared == alone
    return Trial(
        "images counted by `capsnet evaluate`, in memory that does not grow with them; by two processes as by one",
        many,
        many * (not right or peak - usual > LEAK),
        f"RSS {peak:.0f} MiB at most, for {few:,} images {usual:.0f} MiB; {(many + few) / seconds:,.0f} images/s",
    )


def _evaluate(folder: Path, processes: int = 1) -> tuple[dict[str, Any], float]:
    """Return the output and the peak memory (the launcher's) in MiB."""
    command = [*_launch(processes), "evaluate", "capsnet-mnist", "--data", f"folder:{folder}", "--json"]
    process = subprocess.Popen([*command, "--device", "cpu"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"evaluate ended with exit code {process.returncode}")
    answer: dict[str, Any] = json.loads(said)
    return answer, usage.ru_maxrss / 1024


def _classes(folder: Path, source: Sequence[Path], number: int) -> Path:
    """Make a folder with `number` test images in ten classes."""
    for label in range(10):
        _linked(folder / "test" / str(label), source[label:], number // 10)
        _linked(folder / "train" / str(label), source, 2)
    return folder


def _pictures(folder: Path, number: int) -> list[Path]:
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (number, 28, 28), np.uint8)
    paths = [folder / f"{name:04}.png" for name in range(number)]
    for path, pixels in zip(paths, noise, strict=True):
        Image.fromarray(pixels).save(path)
    return paths


def _linked(folder: Path, source: Sequence[Path], number: int) -> Path:
    """Make a folder with `number` hard links to a few pictures."""
    folder.mkdir(parents=True)
    for name in range(number):
        os.link(source[name % len(source)], folder / f"{name:07}.png")
    return folder


def _predict(folder: Path, target: Path, processes: int = 1) -> subprocess.Popen[bytes]:
    command = [*_launch(processes), "predict", "capsnet-mnist", str(folder)]
    command += ["--out", str(target), "--device", "cpu"]
    with target.with_suffix(".log").open("wb") as log:
        return subprocess.Popen(command, stdout=log, stderr=log)


def _launch(processes: int) -> list[str]:
    if processes == 1:
        return [sys.executable, "-m", "capsnet"]
    several = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    return [*several, "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", "-m", "capsnet"]


def _finish(process: subprocess.Popen[bytes], seconds: float = 1800) -> None:
    if process.wait(seconds):
        raise RuntimeError(f"predict ended with exit code {process.returncode}")


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a launcher and its workers, which run in sessions of their own."""
    workers = children(process.pid)
    for pid in (process.pid, *workers):
        os.kill(pid, signal.SIGKILL)
    process.wait()
    while any(_resident(pid) for pid in workers):  # they keep the file open until they end
        time.sleep(0.01)


def _resident(pid: int) -> float:
    """Return the resident memory of a process in MiB; 0 if it has ended."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


PART = Part(
    "streaming",
    "Many files",
    "`capsnet predict --out` runs on folders of 28×28 pictures (hard links to 512 different ones) with the bundled "
    f"network. Resident memory is read every {LOOK_EVERY} seconds. A growth of more than {LEAK} MiB counts as lost, "
    "also for `capsnet evaluate` between few and many images. A kill ends the launcher and its workers together.",
    make,
)
