"""Define the progress reports of a running experiment."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Protocol

from capsnet.training.loop import Progress, Silent

if TYPE_CHECKING:
    from capsnet.experiments.record import Record


class Watch(Protocol):
    """Receive progress reports of an experiment's runs."""

    def training(self, run: str, number: int, of: int) -> AbstractContextManager[Progress]:
        """Report the start of run `number` of `of`; the context gets its progress."""
        ...

    def finished(self, record: Record) -> None:
        """Report that a run has been measured."""

    def skipped(self, run: str) -> None:
        """Report that a run's record already exists."""


class Unwatched:
    """Ignore all progress reports."""

    def training(self, run: str, number: int, of: int) -> AbstractContextManager[Progress]:  # noqa: ARG002
        """Return a silent progress."""
        return nullcontext(Silent())

    def finished(self, record: Record) -> None:
        """Do nothing."""

    def skipped(self, run: str) -> None:
        """Do nothing."""
