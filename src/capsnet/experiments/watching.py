"""Who watches an experiment: nobody, or a person at a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Protocol

from capsnet.training import Progress, Silent

if TYPE_CHECKING:
    from capsnet.experiments.record import Record


class Watch(Protocol):
    """Told of each run of an experiment."""

    def training(self, run: str, number: int, of: int) -> AbstractContextManager[Progress]:
        """Run `number` (from 1) of `of` begins; what is entered watches its training."""
        ...

    def finished(self, record: Record) -> None:
        """A run has been measured."""

    def skipped(self, run: str) -> None:
        """A run's result was there already."""


class Unwatched:
    """Nobody watches."""

    def training(self, run: str, number: int, of: int) -> AbstractContextManager[Progress]:  # noqa: ARG002
        """Nothing."""
        return nullcontext(Silent())

    def finished(self, record: Record) -> None:
        """Nothing."""

    def skipped(self, run: str) -> None:
        """Nothing."""


class Terminal:
    """A bar for the training at hand, and a line for each run that is done."""

    @contextmanager
    def training(self, run: str, number: int, of: int) -> Iterator[Progress]:
        """Announce the run and draw its bar."""
        from capsnet.console import TrainingBar, err

        err.print(f"[bold]{number} of {of}[/]  {run}", markup=True)
        with TrainingBar() as bar:
            yield bar

    def finished(self, record: Record) -> None:
        """Print the run's errors."""
        from capsnet.console import err

        errors = ", ".join(f"{name} {test.error:.2%}" for name, test in record.tests.items())
        err.print(f"        errors: {errors}   ({record.steps:,} steps, {record.seconds:.0f} s)")

    def skipped(self, run: str) -> None:
        """Say so."""
        from capsnet.console import err

        err.print(f"[dim]{run}: its result is there already[/]", markup=True)
