"""One thread computes, requests queue: two would only take the processor from each other."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from itertools import count
from queue import Full, PriorityQueue
from typing import Any, TypeVar

T = TypeVar("T")

_Job = tuple[int, int, "Future[Any]", Callable[[], Any]]


class Busy(Exception):
    """The queue is full."""


class Worker:
    """A thread with a bounded queue. Urgent work goes first; work cancelled while it waits is never done.

    Args:
        waiting: how many jobs may wait.
    """

    def __init__(self, waiting: int = 512) -> None:
        self._queue: PriorityQueue[_Job] = PriorityQueue(waiting)
        self._number = count()  # keeps equal priorities in order, and futures from being compared
        self._closed = False
        self._thread = threading.Thread(target=self._loop, name="capsnet-explorer", daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[], T], *, urgent: bool = True) -> Future[T]:
        """Queue a job.

        Raises:
            Busy: the queue is full, or closed.
        """
        future: Future[T] = Future()
        if self._closed:
            raise Busy("the explorer is closing")
        try:
            self._queue.put_nowait((0 if urgent else 1, next(self._number), future, work))
        except Full:
            raise Busy("too many requests are waiting; try again in a moment") from None
        return future

    def close(self) -> None:
        """Drop what waits; wait for the job at hand."""
        self._closed = True
        while not self._queue.empty():
            self._queue.get_nowait()[2].cancel()
        self._queue.put((-1, -1, Future(), lambda: None))
        self._thread.join(timeout=10)

    def _loop(self) -> None:
        while not self._closed:
            _, _, future, work = self._queue.get()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(work())
            except BaseException as error:  # whatever it is, it belongs to whoever waits for the answer
                future.set_exception(error)
