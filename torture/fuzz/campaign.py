"""Run all fuzz targets in turn, each in its own process."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from torture.fuzz.mutating import mutants
from torture.fuzz.target import Target
from torture.fuzz.targets import targets
from torture.part import Part, Trial

EXECUTIONS, SHORT_EXECUTIONS = 1_000_000, 400
#: Memory limit: about a gigabyte more than PyTorch and the reader need.
MOST_MEGABYTES = 1500
MEMORY_DISK = Path("/dev/shm")


def fuzz(work: Path, short: bool) -> Sequence[Trial]:
    """Run every target; the short version does not use Atheris."""
    if short:
        return [try_mutants(target, work / target.name, SHORT_EXECUTIONS) for target in targets().values()]
    return [run_target(target, work, EXECUTIONS) for target in targets().values()]


def try_mutants(target: Target, work: Path, count: int) -> Trial:
    """Run one target in this process, with reproducible inputs; exceptions are raised."""
    work.mkdir()
    check = target.prepare(work)
    tried = 0
    for data in mutants(target.seeds(), target.words(), count):
        check(data)
        tried += 1
    return Trial(target.what, tried, 0)


def run_target(target: Target, work: Path, executions: int) -> Trial:
    """Run one target under Atheris. An input that breaks it is kept in `work`."""
    log = work / f"{target.name}.log"
    started = time.monotonic()
    # Files are written a million times, so use a memory disk if there is one.
    with tempfile.TemporaryDirectory(dir=MEMORY_DISK if MEMORY_DISK.is_dir() else work) as folder:
        command = [sys.executable, "-m", "torture.fuzz.driver", target.name, folder, str(executions)]
        with log.open("wb") as output:
            code = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, check=False).returncode
        broken = [path for path in Path(folder).iterdir() if path.is_file() and "-" in path.name]
        for path in broken:
            shutil.copy(path, work / f"{target.name}-{path.name}")
    seconds = time.monotonic() - started
    said = log.read_text(errors="replace")
    done, memory = _figure(said, "number_of_executed_units"), _figure(said, "peak_rss_mb")
    lost = code != 0 or done < executions or memory > MOST_MEGABYTES
    covered = re.findall(r"cov: (\d+) ft: (\d+)", said)
    branches, features = covered[-1] if covered else ("0", "0")
    note = (
        f"{done / seconds:,.0f} a second; {int(branches):,} branches, {int(features):,} features; "
        f"slowest {_figure(said, 'slowest_unit_time_sec')} s; at most {memory:,} MB"
    )
    if lost:
        note += f"; see {', '.join(path.name for path in broken) or log.name}: {_reason(said)}"
    what = f"{target.what}: any bytes are read or refused in one line, within 60 s and {MOST_MEGABYTES:,} MB"
    return Trial(what, max(done, 1), int(lost), note)


def _figure(said: str, name: str) -> int:
    found = re.search(rf"stat::{name}:\s*(\d+)", said)
    return int(found[1]) if found else 0


def _reason(said: str) -> str:
    """Return the last line that looks like an exception or a verdict of libFuzzer."""
    lines = [
        line for line in said.splitlines() if re.match(r"\w*(Error|Exception|ERROR|Panic)|==\d+==", line)
    ]
    return lines[-1][:200] if lines else "no reason given"


PART = Part(
    "fuzz",
    "Fuzzing",
    "[Atheris](https://github.com/google/atheris) (libFuzzer) generates files, guided by coverage. Each file must be "
    "read or refused with a `CapsnetError`. Branches are counted in capsnet and in Pillow's Python code. The layers "
    "below (zlib, safetensors, pydantic, Pillow's C code) are fuzzed without coverage.",
    fuzz,
)
