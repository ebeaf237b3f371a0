"""What an experiment reports while it runs."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Protocol

from capsnet.training.loop import Progress, Silent

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
