"""Work dealt out to the processes of one launch (`torchrun`), and its results collected in order."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Team:
    """The processes that were launched together, or just this one. Process 0 has the work and gets the results."""

    def __init__(self) -> None:
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0"))
        self._group: Any = None
        if self.size > 1:
            from torch import distributed

            if not distributed.is_initialized():
                distributed.init_process_group("gloo")
            self._group = distributed.new_group(backend="gloo")  # objects travel through main memory

    @property
    def leads(self) -> bool:
        """Whether this process is the one that gets the results."""
        return self.rank == 0

    def map(self, work: Callable[[Item], Result], items: Iterator[Item]) -> Iterator[Result]:
        """work(item) of every item, in the order of the items: for process 0. The others work and get nothing.

        Once per launch; one item per process is under way at a time. `items` is only read in process 0. An error in
        `work` ends the process it happens in, and so the launch.
        """
        if self.size == 1:
            yield from map(work, items)
        elif self.leads:
            yield from self._lead(work, items)
        else:
            share: list[Item] | None
            while (share := self._deal(None)) is not None:
                self._collect([work(item) for item in share])
            self._part()

    def _lead(self, work: Callable[[Item], Result], items: Iterator[Item]) -> Iterator[Result]:
        try:
            while dealt := list(islice(items, self.size)):
                shares: list[list[Item] | None] = [dealt[rank : rank + 1] for rank in range(self.size)]
                own = self._deal(shares) or []
                for results in self._collect([work(item) for item in own]):
                    yield from results
        finally:  # also when `items` fails, or whoever reads the results wants no more
            nothing: list[list[Item] | None] = [None] * self.size
            self._deal(nothing)
            self._part()

    def _part(self) -> None:
        """The end: process 0 has heard from all, and no thread of the connection is left to abort the exit."""
        from torch import distributed

        self._collect([])
        distributed.destroy_process_group()

    def _deal(self, shares: Sequence[list[Item] | None] | None) -> list[Item] | None:
        """This process's share of what process 0 deals; None: there is no more."""
        from torch import distributed

        share: list[Any] = [None]
        distributed.scatter_object_list(share, list(shares) if shares else None, src=0, group=self._group)
        return share[0]  # type: ignore[no-any-return]

    def _collect(self, results: list[Result]) -> list[list[Result]]:
        """Everyone's results, for process 0."""
        from torch import distributed

        collected: list[Any] | None = [None] * self.size if self.leads else None
        distributed.gather_object(results, collected, dst=0, group=self._group)
        return collected or []
