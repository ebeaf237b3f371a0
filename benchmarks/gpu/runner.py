"""Run jobs one after the other, each in a process of its own, until the time is over.

A job that crashes, hangs or poisons its CUDA context costs only itself. After each job the report and the records are
written anew, atomically: if this process is killed, at most the job in flight is lost.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import time
import traceback
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import accelerate  # noqa: F401  (with the next, a second of imports that each fork then finds done)
import torch._dynamo  # noqa: F401

from capsnet._support.files import read_json, write_atomically, write_json

#: Seconds that a stopped job gets to save its state.
GRACE = 5.0


@dataclass(frozen=True)
class Setting:
    """Where and how jobs run."""

    toy: bool
    """Tiny sizes on the CPU, Triton's kernels in its interpreter."""
    work: Path
    """Trainings, and the result of the job in flight."""
    broken: tuple[str, ...] = ()
    """Fast paths that jobs fall back from: the smoke job refused them, or they take long to start."""

    @property
    def device(self) -> str:
        return "cpu" if self.toy else "cuda"


@dataclass(frozen=True)
class Job:
    """One measurement. Its name is KIND or KIND:VARIANT."""

    name: str
    seconds: float
    """Estimate for an H100."""
    measure: Callable[[Setting, Callable[[Any], None]], Any]
    """Returns the result as JSON can hold it; may also save it in parts, by the function that it is given."""

    @property
    def kind(self) -> str:
        return self.name.partition(":")[0]


class Report:
    """What came of the jobs, in two files: report.json and records.zip."""

    def __init__(self, out: Path, about: dict[str, Any]) -> None:
        self.path, self.records = out / "report.json", out / "records.zip"
        out.mkdir(parents=True, exist_ok=True)
        kept = read_json(self.path)["jobs"] if self.path.exists() else {}
        self.jobs: dict[str, Any] = kept
        self.about = about

    def is_done(self, job: Job) -> bool:
        return bool(self.jobs.get(job.name, {}).get("state") == "done")

    def seconds(self, job: Job, toy: bool) -> float:
        """Return the estimate, corrected by what jobs of its kind have taken."""
        found = [self.jobs[name] for name in self.jobs if name.partition(":")[0] == job.kind]
        found = [one for one in found if one["state"] == "done"]
        if toy or not found:
            return 0.0 if toy else job.seconds
        pace = sum(one["seconds"] for one in found) / sum(one["estimate"] for one in found)
        return job.seconds * min(3.0, max(0.3, pace))

    def broken(self) -> tuple[str, ...]:
        """Return the fast paths that failed in the smoke job, or that it did not reach."""
        checks = (self.jobs.get("smoke", {}).get("result") or {}).get("checks", {})
        return tuple(name for name in ("triton",) if checks.get(name) != "ok")

    def add(self, job: Job, state: str, seconds: float, result: Any, work: Path) -> None:
        self.jobs[job.name] = {
            "state": state,
            "seconds": round(seconds, 1),
            "estimate": job.seconds,
            "result": result,
        }
        if files := sorted((work / "records").rglob("*.json")):
            write_atomically(self.records, lambda path: _zip(path, work / "records", files))
        write_json(self.path, {"about": self.about, "jobs": self.jobs})


def _zip(path: Path, root: Path, files: Sequence[Path]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in files:
            archive.write(file, file.relative_to(root).as_posix())


def run(jobs: Sequence[Job], report: Report, setting: Setting, seconds: float) -> None:
    """Run the jobs that are not done and that end in time."""
    end = time.monotonic() + seconds - GRACE
    for job in jobs:
        left = end - time.monotonic()
        if report.is_done(job):
            print(f"{job.name}: done before", flush=True)
        elif left < max(1.0, report.seconds(job, setting.toy)):
            print(f"{job.name}: left out, {left:.0f} s are left", flush=True)
        else:
            broken = ("triton", "cpu") if setting.toy else () if job.kind == "smoke" else report.broken()
            started = time.monotonic()
            state, result = _in_a_process(
                job, replace(setting, broken=broken), min(left, 3 * job.seconds + 60)
            )
            report.add(job, state, time.monotonic() - started, result, setting.work)
            print(f"{job.name}: {state}, {time.monotonic() - started:.1f} s", flush=True)


def _in_a_process(job: Job, setting: Setting, limit: float) -> tuple[str, Any]:
    """Run a job in a fork, which finds everything imported; return its state and result."""
    result = setting.work / "result.json"
    result.unlink(missing_ok=True)
    process = multiprocessing.get_context("fork").Process(target=_child, args=(job, setting, result))
    process.start()
    process.join(limit)
    state = "done" if process.exitcode == 0 else "failed"
    for stop in (process.terminate, process.kill):
        if process.is_alive():
            state = "out of time"
            stop()
            process.join(GRACE)
    return state, read_json(result) if result.exists() else None


def _child(job: Job, setting: Setting, result: Path) -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: ends with the process that started it
    without_fast_paths(setting.broken)

    def save(value: Any) -> None:
        write_json(result, value)

    try:
        save(job.measure(setting, save))
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    sys.stdout.flush()
    os._exit(0)  # no exit handlers of libraries that this process shares with its parent


def without_fast_paths(names: Sequence[str]) -> None:
    """Never pick these backends in this process, unless they are asked for by name."""
    from capsnet.routing import agree_backends, backends

    for module in (backends, agree_backends):
        module.FAST = tuple(name for name in module.FAST if name not in names)
