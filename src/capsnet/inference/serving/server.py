"""Run `capsnet serve`: listen, and start the workers."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from capsnet._support.errors import CapsnetError, shown
from capsnet._support.sockets import LOOPBACK, listen
from capsnet.inference.serving.finding import onnx_of
from capsnet.inference.serving.model import OnnxModel


def serve(
    model: str,
    host: str = "127.0.0.1",
    port: int = 8722,
    workers: int = 1,
    allowed_hosts: Sequence[str] = (),
    seconds: float = 30.0,
) -> None:
    """Serve a model until interrupted.

    Args:
        model: an ONNX file, or a model as `capsnet export` takes it.
        host: address to listen on. Any address but loopback lets other computers on the network use this one.
        port: TCP port; 0 picks a free port.
        workers: processes, which share the cores.
        allowed_hosts: host names of requests, besides `host` and loopback; "*" allows all.
        seconds: time limit of a request.

    Raises:
        CapsnetError: a package is not installed, the model does not exist or cannot be served, or the port is taken.
    """
    try:
        import onnxruntime  # noqa: F401

        from capsnet.inference.serving.app import Settings
        from capsnet.inference.serving.worker import server_of, supervise
    except ImportError as error:
        raise CapsnetError(
            f"serving needs {error.name}; install it with: pip install 'capsnet[serve]'"
        ) from error
    _allow_many_files()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if host in ("0.0.0.0", "::") and not allowed_hosts:
        print(
            "note: requests to any name but localhost are refused; allow this computer's name with --allow-host NAME",
            file=sys.stderr,
            flush=True,
        )
    with listen(host, port) as listener, TemporaryDirectory(prefix="capsnet-serve-") as shared:
        file = onnx_of(model)
        called, hosts = Path(model).name.removesuffix(".onnx"), [*LOOPBACK, host, *allowed_hosts]
        settings = Settings(str(file), called, hosts, max(1, cores // workers), seconds)
        name = f"[{host}]" if ":" in host else host
        said = f"{shown(model)}: http://{name}:{listener.getsockname()[1]}/predict   (stop with Ctrl-C)"
        if workers > 1:
            OnnxModel.open(file)  # a wrong file is reported here, not by every worker
            print(said, file=sys.stderr, flush=True)
            supervise(settings, listener, workers, Path(shared))
            return
        server = server_of(settings)
        print(said, file=sys.stderr, flush=True)
        # uvicorn stops at SIGTERM, and then raises it again for this handler, so that the files above are removed.
        before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        try:
            with suppress(KeyboardInterrupt):  # the normal way to stop
                server.run(sockets=[listener])
        finally:
            signal.signal(signal.SIGTERM, before)


def _allow_many_files() -> None:
    """Raise the limit of open files, so that many connections can be refused politely."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65_536 if hard == resource.RLIM_INFINITY else min(65_536, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
