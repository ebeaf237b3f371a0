"""Terminal output: progress bars during training, one line for an error."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from capsnet._support.errors import shown

if TYPE_CHECKING:
    from capsnet.experiments.record import Record
    from capsnet.inference.evaluation import Evaluation
    from capsnet.training.loop import Progress as TrainingProgress

# Markup is off by default, since names of files and classes may look like markup.
out = Console(markup=False, emoji=False, highlight=False, soft_wrap=True)
err = Console(stderr=True, markup=False, emoji=False, highlight=False, soft_wrap=True)


def fail(message: str, code: int = 2) -> NoReturn:
    """Print one line to standard error and exit."""
    line = shown(" ".join(message.split("\n")))
    err.print(Text.assemble(("error:", "bold red"), " ", line))
    sys.exit(code)


class TrainingBar:
    """A progress bar with loss, images/s and remaining time.

    Without a terminal, it prints one line per evaluation. Implements `capsnet.training.loop.Progress`.
    """

    def __init__(self) -> None:
        self._bar = Progress(
            TextColumn("[bold]step"),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=err,
            disable=not err.is_terminal,
            transient=True,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def logged(self, step: int, steps: int, values: dict[str, float]) -> None:
        """Update the bar."""
        if self._task is None:
            self._task = self._bar.add_task("train", total=steps, figures="")
        figures = f"loss {values['loss']:.4f}   {values['images_per_second']:,.0f} images/s"
        self._bar.update(self._task, completed=step, figures=figures)

    def evaluated(self, step: int, evaluation: Evaluation) -> None:
        """Print the test error so far."""
        self._bar.console.print(f"step {step:>7,}   {evaluation.title} {evaluation}")

    def noticed(self, message: str) -> None:
        """Print the message in one line."""
        line = shown(" ".join(message.splitlines()))
        self._bar.console.print(Text.assemble(("note:", "bold"), " ", line))


class ExperimentLines:
    """A progress bar for the current training, and a line for each finished run."""

    @contextmanager
    def training(self, run: str, number: int, of: int) -> Iterator[TrainingProgress]:
        """Print the run's name and show its bar."""
        err.print(f"[bold]{number} of {of}[/]  {run}", markup=True)
        with TrainingBar() as bar:
            yield bar

    def finished(self, record: Record) -> None:
        """Print the run's errors."""
        errors = ", ".join(f"{name} {test.error:.2%}" for name, test in record.tests.items())
        err.print(f"        errors: {errors}   ({record.steps:,} steps, {record.seconds:.0f} s)")

    def skipped(self, run: str) -> None:
        """Print that the run is already finished."""
        err.print(f"[dim]{run}: already finished[/]", markup=True)
