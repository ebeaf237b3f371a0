"""A part of the torture run: what was tried, how often, and what was lost."""

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
    """One kind of trouble."""

    what: str
    """The trouble and what must come of it, as a reader would say it."""
    tried: int
    """0: it could not be tried on this machine, which the note explains."""
    lost: int
    """How often it came out otherwise. Anything but 0 fails the torture run."""
    note: str = ""
    """Figures worth knowing: seconds, percentiles, megabytes."""

    @property
    def verdict(self) -> Literal["ok", "LOST", "UNTRIED"]:
        """What came of it, in a word."""
        return "LOST" if self.lost else "ok" if self.tried else "UNTRIED"


class Make(Protocol):
    """Does a part of the torture. `short`: the small version, of seconds, that the tests run."""

    def __call__(self, work: Path, short: bool) -> Sequence[Trial]:
        """Try everything, leaving files only under the empty folder `work`."""


@dataclass(frozen=True)
class Part:
    """A group of trials with a heading in the report."""

    name: str
    title: str
    about: str
    """How it is done, in a few sentences of Markdown."""
    make: Make


def run(part: Part, work: Path, short: bool, say: Callable[[str], None]) -> Sequence[Trial]:
    """Try one part, keep what came out (unless short), and say it."""
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
    """What the last full run of a part left behind."""
    path = RESULTS / f"{part.name}.json"
    return read_json(path) if path.exists() else None
