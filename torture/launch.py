"""Start `capsnet` in milliseconds, forked from a server with PyTorch imported."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import numpy as np
from PIL import Image

#: Its processes have imported PyTorch before they start.
WARM = multiprocessing.get_context("forkserver")
WARM.set_forkserver_preload(["torture.warm"])


@dataclass(frozen=True)
class Launched:
    """Hold a running or finished `capsnet` process."""

    process: ForkServerProcess
    log: Path

    def wait(self, seconds: float = 120) -> int:
        """Return the exit code, negative for a signal; kill the process after the timeout."""
        self.process.join(seconds)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
            return 124
        assert self.process.exitcode is not None
        return self.process.exitcode

    @property
    def said(self) -> str:
        """Return everything the process printed."""
        return self.log.read_text(errors="replace")

    def ended_in_one_line(self, *words: str) -> bool:
        """Return whether it ended with exit code 2 and one error line with these words."""
        errors = [line for line in self.said.splitlines() if line.startswith("error:")]
        return (
            self.wait() == 2
            and len(errors) == 1
            and "Traceback" not in self.said
            and all(word in errors[0] for word in words)
        )


def launch(log: Path, *arguments: object, before: Callable[[], None] | None = None) -> Launched:
    """Start `capsnet ARGUMENTS` with one thread; its output goes to `log`.

    before: a picklable function that the new process calls first.
    """
    process = WARM.Process(target=_capsnet, args=(str(log), [str(part) for part in arguments], before))
    process.start()
    return Launched(process, log)


def small_training(work: Path, steps: int) -> list[str]:
    """Return options for a training of one second on 80 small images."""
    folder = work / "pictures"
    chance = np.random.default_rng(0)
    for label in range(2):
        (folder / str(label)).mkdir(parents=True)
        for number in range(40):
            pixels = chance.integers(0, 100, (18, 18), np.uint8)
            pixels[9 * label : 9 * label + 9] += 120
            Image.fromarray(pixels).save(folder / str(label) / f"{number}.png")
    options = {
        "data": f"folder:{folder}",
        "stem-channels": 8,
        "primary-types": 2,
        "batch-size": 16,
        "steps": steps,
        "save-seconds": 0,
        "device": "cpu",
    }
    return [part for name, value in options.items() for part in (f"--{name}", str(value))]


def children(parent: int) -> list[int]:
    """Return the living child processes of a process."""
    found = subprocess.run(["pgrep", "-P", str(parent)], capture_output=True, text=True, check=False)
    return [int(line) for line in found.stdout.split()]


def _capsnet(log: str, arguments: list[str], before: Callable[[], None] | None) -> None:
    import torch

    from capsnet.cli import main

    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    sys.stdout = os.fdopen(1, "w", buffering=1)
    sys.stderr = os.fdopen(2, "w", buffering=1)
    sys.argv = ["capsnet", *arguments]
    torch.set_num_threads(1)
    if before is not None:
        before()
    main()
