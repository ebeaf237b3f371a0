"""Run `capsnet explore`: load the model, listen, open the browser."""

from __future__ import annotations

import sys
import threading
import webbrowser
from contextlib import ExitStack
from importlib import import_module
from typing import TYPE_CHECKING

from capsnet._support import dispatch
from capsnet._support.errors import CapsnetError, shown
from capsnet._support.sockets import LOOPBACK, listen

if TYPE_CHECKING:
    from capsnet.explorer.session import Session

DEFAULT_MODEL = "capsnet-mnist"
DEFAULT_PORT = 8721


def serve(
    run: str | None = None, port: int = DEFAULT_PORT, open_browser: bool = True, host: str = "127.0.0.1"
) -> None:
    """Show a model in the browser until interrupted.

    Args:
        run: a run folder, a saved model, or the name of a bundled model. Default: `DEFAULT_MODEL`.
        port: TCP port; 0 picks a free port.
        open_browser: open the page when the server listens.
        host: address to listen on. Any address but loopback lets other computers on the network use this one.

    Raises:
        CapsnetError: the web framework is not installed, the model does not exist, or the port is taken.
    """
    try:
        import uvicorn

        from capsnet.explorer.app import create_app
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in {"fastapi", "uvicorn", "starlette"}:
            raise
        raise CapsnetError(
            f"the explorer needs {error.name}; install it with: pip install 'capsnet[explorer]'"
        ) from error
    from capsnet.explorer.session import open_session

    listener = listen(host, port)
    # Loading the compiled kernels takes several seconds, so the page starts with the plain path.
    plain = ExitStack()
    plain.enter_context(dispatch.disabled())
    try:
        session = open_session(run or DEFAULT_MODEL)
        name = f"[{host}]" if ":" in host else host
        address = f"http://{name}:{listener.getsockname()[1]}/"
        app = create_app(session, hosts={*LOOPBACK, host})
        if open_browser:
            # The socket already accepts connections, so the browser waits until the server answers.
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
        print(f"{shown(session.run)}: {address}   (stop with Ctrl-C)", file=sys.stderr, flush=True)
        server = uvicorn.Server(
            uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=2)
        )
        threading.Thread(target=_warm_up, args=(session, plain), daemon=True).start()
        server.run(sockets=[listener])
    except KeyboardInterrupt:
        pass  # the normal way to stop
    finally:
        plain.close()
        listener.close()


def _warm_up(session: Session, plain: ExitStack) -> None:
    """Load the compiled kernels in the background, then switch to them."""
    import torch

    import_module("capsnet.routing.cpu.kernels")
    plain.close()
    with torch.no_grad():  # the first call loads the kernels
        session.model.scores(torch.zeros(16, *session.model.config.image_shape))
