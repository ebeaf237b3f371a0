"""Put the images of several requests into one batch."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


class Busy(Exception):
    """Too many images are waiting."""


class Batcher:
    """Compute the scores of single images in batches.

    The first image starts a batch at once. Images that come meanwhile make the next batch: there is no waiting time.

    Args:
        scores: images (n, …) → scores (n, classes); it runs in a thread.
        largest: images in a batch, which bounds the memory.
        waiting: images that may wait; more are refused.
    """

    def __init__(self, scores: Callable[[Array], Array], largest: int = 16, waiting: int = 512) -> None:
        self._scores, self._largest, self._waiting = scores, largest, waiting
        self._queue: deque[tuple[Array, asyncio.Future[Array]]] = deque()
        self._pool = ThreadPoolExecutor(1, "model")
        self._task: asyncio.Task[None] | None = None

    async def __call__(self, images: Array) -> Array:
        """Return the scores of a request's images.

        Raises:
            Busy: too many images are waiting.
        """
        if len(self._queue) + len(images) > self._waiting:
            raise Busy(f"{len(self._queue)} images are waiting; try again in a second")
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[Array]] = [loop.create_future() for _ in images]
        self._queue.extend(zip(images, futures, strict=True))
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._work())
        return np.stack(await asyncio.gather(*futures))

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while self._queue:
            batch: list[tuple[Array, asyncio.Future[Array]]] = []
            while self._queue and len(batch) < self._largest:
                image, future = self._queue.popleft()
                if not future.cancelled():  # its time is over
                    batch.append((image, future))
            if not batch:
                continue
            try:
                stacked = np.stack([image for image, _ in batch])
                rows = await loop.run_in_executor(self._pool, self._scores, stacked)
            except Exception as error:  # one request's failure must not end the work for the others
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (_, future), row in zip(batch, rows, strict=True):
                if not future.done():
                    future.set_result(row)

    def close(self) -> None:
        """End the thread."""
        self._pool.shutdown()
