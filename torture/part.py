"""Define a part of the torture run and its trials."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Protocol

from capsnet._support.environment import environment
from capsnet._support.files import read_json, write_json

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Trial:
    """Hold the result of one kind of failure."""

    what: str
    """The failure and the expected outcome, for the report."""
    tried: int
    """Number of attempts. 0: it could not be tried on this machine; the note gives the reason."""
    lost: int
    """Number of attempts with another outcome. A value above 0 fails the torture run."""
    note: str = ""
    """Further figures: seconds, percentiles, megabytes."""

    @property
    def verdict(self) -> Literal["ok", "LOST", "UNTRIED"]:
        """Return the verdict in one word."""
        return "LOST" if self.lost else "ok" if self.tried else "UNTRIED"


class Make(Protocol):
    """Run a part of the torture run; `short` takes only seconds."""

    def __call__(self, work: Path, short: bool) -> Sequence[Trial]:
        """Run all trials, and write files only into the empty folder `work`."""


@dataclass(frozen=True)
class Part:
    """Hold a group of trials with a heading in the report."""

    name: str
    title: str
    about: str
    """The method, in a few sentences of Markdown."""
    make: Make


def run(part: Part, work: Path, short: bool, say: Callable[[str], None]) -> Sequence[Trial]:
    """Run one part, report its trials and, unless short, write its record."""
    work.mkdir(parents=True)
    started = time.monotonic()
    trials = part.make(work, short)
    seconds = time.monotonic() - started
    for trial in trials:
        say(f"{trial.verdict:>7}  {trial.tried - trial.lost}/{trial.tried}  {trial.what}  {trial.note}")
    if not short:
        record = {
            "part": part.name,
            "date": datetime.now(UTC).date().isoformat(),
            "seconds": round(seconds),
            "environment": environment(),
            "trials": [asdict(trial) for trial in trials],
        }
        write_json(RESULTS / f"{part.name}.json", record)
    return trials


def recorded(part: Part) -> dict[str, Any] | None:
    """Read the record of the last full run of a part, if there is one."""
    path = RESULTS / f"{part.name}.json"
    return read_json(path) if path.exists() else None
