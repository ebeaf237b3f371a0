"""The processes of one `torchrun` launch, or just one: device, rank, shared work and a joint end."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from enum import Enum
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from capsnet._support.errors import CapsnetError

if TYPE_CHECKING:
    import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def pick_device(device: str) -> torch.device:
    """The device that a name stands for; "auto" is what Accelerate finds.

    Raises:
        CapsnetError: no such device here.
    """
    import torch
    from accelerate import PartialState

    if device == "cuda" and not torch.cuda.is_available():
        raise CapsnetError("no CUDA device is available here; use --device cpu or auto")
    if device == "mps" and not torch.backends.mps.is_available():
        raise CapsnetError("no MPS device is available here; use --device cpu or auto")
    if device not in ("auto", "cpu", "cuda", "mps"):
        raise CapsnetError(f"device {device!r} is none of auto, cpu, cuda, mps")
    if device == "auto":
        # Accelerate, asked without `cpu=True` on such a machine, takes each process of a launch for a lone one.
        if not torch.accelerator.is_available():
            return torch.device("cpu")
        found: torch.device = PartialState().device
        return found
    if device == "cuda" and "LOCAL_RANK" in os.environ:  # one GPU for each process of a launch
        return torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    return torch.device(device)


def is_main_process() -> bool:
    """Whether this process is the one that writes (the only one, unless launched as several)."""
    return os.environ.get("RANK", "0") == "0"


class ConnectionLost(CapsnetError):
    """Another process of the launch has ended, or cannot be reached any more."""


def refuse_others(command: str, instead: str) -> None:
    """For what one process does by itself: several that were launched together would write the same files.

    Args:
        command: what was asked for.
        instead: what to do to use more of the machine.

    Raises:
        CapsnetError: this process is one of several.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise CapsnetError(f"`capsnet {command}` is for one process; start it without a launcher{instead}")


@contextmanager
def connected(advice: str = "give the same command again") -> Iterator[None]:
    """What PyTorch says of a connection that breaks, in one line.

    Args:
        advice: what to do then.

    Raises:
        ConnectionLost: it broke.
    """
    try:
        yield
    except RuntimeError as error:
        if not _is_of_a_connection(error):
            raise
        raise ConnectionLost(
            f"another process of this launch has ended or cannot be reached; {advice}"
        ) from error


def _is_of_a_connection(error: RuntimeError) -> bool:
    from torch import distributed

    # Gloo's errors are plain RuntimeErrors, which name the file of its source that they come from.
    if "/gloo/" in str(error):
        return True
    return distributed.is_available() and isinstance(error, distributed.DistError)


@contextmanager
def parting() -> Iterator[None]:
    """Processes that end as they should, by `sys.exit` too, do it together.

    None of them is taken for dead by the launcher while another one saves or says something; and no thread of the
    connection is left, which would abort the exit of a few.
    """
    try:
        yield
    except SystemExit:
        _part()
        raise
    _part()


def _part() -> None:
    from accelerate import PartialState
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        with suppress(RuntimeError):  # another one was killed just now: there is nothing left to wait for
            PartialState().wait_for_everyone()
        distributed.destroy_process_group()


class _Word(Enum):
    """What process 0 says in place of a share."""

    DONE = "there is no more of this work"
    OVER = "there is no more work at all"


class Team(AbstractContextManager["Team"]):
    """The processes that were launched together, or just this one. Process 0 has the work and gets the results.

    Use in a with statement. All processes must make the same calls of `map` in the same order; if process 0 fails
    between them, the others find that there is nothing to do.
    """

    def __init__(self) -> None:
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0"))
        self._group: Any = None
        self._over = self.size == 1
        self._in_step = True
        if self.size > 1:
            from torch import distributed

            if not distributed.is_initialized():
                distributed.init_process_group("gloo")
            self._group = distributed.new_group(backend="gloo")  # objects travel through main memory

    @property
    def leads(self) -> bool:
        """Whether this process is the one that gets the results."""
        return self.rank == 0

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """All part together. A process that failed amid the work just ends: the others notice."""
        if self.size == 1 or not self._in_step or (error is not None and not self.leads):
            return
        # The others may have failed too, for the same reason; this process's own error is the one to tell.
        with suppress(*(() if error is None else (ConnectionLost,))):
            if not self._over:
                self._deal([_Word.OVER] * self.size if self.leads else None)
            self._part()

    def map(self, work: Callable[[Item], Result], items: Iterator[Item]) -> Iterator[Result]:
        """work(item) of every item, in the order of the items: for process 0. The others work and get nothing.

        One item per process is under way at a time. `items` is only read in process 0. An error in `work` ends the
        process it happens in, and so the launch.

        Raises:
            ConnectionLost: another process has ended.
        """
        if self.size == 1:
            yield from map(work, items)
        elif self.leads:
            yield from self._lead(work, items)
        elif not self._over:
            while not isinstance(share := self._deal(None), _Word):
                self._collect([work(item) for item in share])
            self._over = share is _Word.OVER

    def _lead(self, work: Callable[[Item], Result], items: Iterator[Item]) -> Iterator[Result]:
        try:
            while dealt := list(islice(items, self.size)):
                own = self._deal([dealt[rank : rank + 1] for rank in range(self.size)])
                assert not isinstance(own, _Word)
                for results in self._collect([work(item) for item in own]):
                    yield from results
        finally:  # also when `items` fails, or whoever reads the results wants no more
            if self._in_step and not self._over:
                self._deal([_Word.DONE] * self.size)

    def _part(self) -> None:
        """The end: process 0 has heard from all, and no thread of the connection is left to abort the exit."""
        from torch import distributed

        self._over = True
        self._collect([])
        distributed.destroy_process_group()

    def _deal(self, shares: Sequence[Any] | None) -> list[Any] | _Word:
        """This process's share of what process 0 deals. Until its results are collected the team is out of step."""
        from torch import distributed

        share: list[Any] = [None]
        self._in_step = False
        with connected():
            distributed.scatter_object_list(share, list(shares) if shares else None, src=0, group=self._group)
        dealt: list[Any] | _Word = share[0]
        if isinstance(dealt, _Word):  # there will be no results
            self._in_step = True
            self._over = dealt is _Word.OVER
        return dealt

    def _collect(self, results: list[Result]) -> list[list[Result]]:
        """Everyone's results, for process 0."""
        from torch import distributed

        collected: list[Any] | None = [None] * self.size if self.leads else None
        with connected():
            distributed.gather_object(results, collected, dst=0, group=self._group)
        self._in_step = True
        return collected or []


def alone(work: Callable[[Item], Result], items: Iterator[Item]) -> Iterator[Result]:
    """What `Team.map` does, in this process only."""
    return map(work, items)
