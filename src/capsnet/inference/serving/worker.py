"""Run the processes that answer requests.

`python -m capsnet.inference.serving.worker FD` answers on the socket with that number, until it is stopped.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

from capsnet._support.errors import CapsnetError
from capsnet.inference.serving.app import Settings, create_app, from_environment, to_environment
from capsnet.inference.serving.metrics import SHARED
from capsnet.inference.serving.protocol import ImpatientProtocol

#: Connections that a worker keeps open; more get status 503.
MAX_CONNECTIONS = 1000
#: The server ends after this number of workers in a row that ended sooner than this many seconds after their start.
EARLY_ENDS, SECONDS_ALIVE = 3, 5.0


def server_of(settings: Settings) -> Any:
    """Return a uvicorn server for one process.

    Raises:
        CapsnetError: the ONNX file cannot be served.
    """
    import uvicorn

    config = uvicorn.Config(
        create_app(settings),
        log_level="error",
        access_log=False,
        http=ImpatientProtocol,
        ws="none",
        limit_concurrency=MAX_CONNECTIONS,
        timeout_graceful_shutdown=max(1, int(settings.seconds)),
    )
    return uvicorn.Server(config)


def supervise(settings: Settings, listener: socket.socket, workers: int, shared: Path) -> None:
    """Run workers until SIGTERM or Ctrl-C, and replace those that die.

    Args:
        settings: for every worker.
        listener: the socket that they share.
        workers: how many.
        shared: a folder for their metrics.

    Raises:
        CapsnetError: several workers in a row ended soon after their start.
    """
    to_environment(settings)
    stopping: list[int] = []

    def stop(number: int, _: FrameType | None) -> None:
        stopping.append(number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    command = [sys.executable, "-m", "capsnet.inference.serving.worker", str(listener.fileno())]

    def start() -> tuple[float, subprocess.Popen[bytes]]:
        environment = {**os.environ, SHARED: str(shared)}
        return time.monotonic(), subprocess.Popen(command, pass_fds=[listener.fileno()], env=environment)

    running, early = [start() for _ in range(workers)], 0
    try:
        while not stopping:
            time.sleep(0.1)
            for place, (since, process) in enumerate(running):
                if process.poll() is None or stopping:
                    continue
                early = early + 1 if time.monotonic() - since < SECONDS_ALIVE else 0
                if early == EARLY_ENDS:
                    raise CapsnetError(
                        f"{early} workers in a row ended soon after their start (code {process.returncode})"
                    )
                running[place] = start()
    finally:
        for _, process in running:
            process.terminate()
        for _, process in running:
            process.wait()
        for number, handler in before.items():
            signal.signal(number, handler)


def main() -> None:
    """Answer requests on an inherited socket."""
    with socket.socket(fileno=int(sys.argv[1])) as listener:
        server_of(from_environment()).run(sockets=[listener])


if __name__ == "__main__":
    main()
