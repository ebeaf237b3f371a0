"""Run queued jobs on one thread. Two threads would only compete for the processor."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import Full, Queue
from typing import Any, TypeVar

T = TypeVar("T")


class Busy(Exception):
    """Signal that the queue is full or closed."""


class Worker:
    """Run jobs from a bounded queue on one thread.

    Args:
        waiting: largest number of waiting jobs.
        niceness: priority of the thread; 0 is normal, larger values give way to other work (Linux only).
    """

    def __init__(self, waiting: int = 512, niceness: int = 0) -> None:
        self._queue: Queue[tuple[Future[Any], Callable[[], Any]]] = Queue(waiting)
        self._niceness = niceness
        self.closed = False
        self._thread = threading.Thread(target=self._loop, name=f"explorer-{niceness}", daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Queue a job.

        Raises:
            Busy: the queue is full, or closed.
        """
        future: Future[T] = Future()
        if self.closed:
            raise Busy("the explorer is closing")
        try:
            self._queue.put_nowait((future, work))
        except Full:
            raise Busy("too many requests are waiting; try again in a moment") from None
        return future

    def close(self) -> None:
        """Cancel waiting jobs and wait for the current one. Long jobs must check `closed`."""
        self.closed = True
        while not self._queue.empty():
            self._queue.get_nowait()[0].cancel()
        self._queue.put((Future(), lambda: None))
        self._thread.join(timeout=10)

    def _loop(self) -> None:
        if self._niceness and sys.platform == "linux":
            # On Linux each thread has its own priority; the threads that PyTorch starts from it inherit it.
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), self._niceness)
        while not self.closed:
            future, work = self._queue.get()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(work())
            except BaseException as error:  # every exception goes to the caller that waits for the result
                future.set_exception(error)
