"""Serve the explorer: a local web page that shows each step of a capsule network.

    session.py     the model, its control network and the example digits
    schemas/       requests and responses
    scene.py       the visitor's layers → the network's input
    tracing.py     one scene → every intermediate value of the network
    details.py     the arithmetic of one unit: a Conv1 pixel, a capsule, a vote
    comparing.py   sweeps against the max-pooling control, and routing ablations
    worker.py      a thread that computes queued requests one at a time
    guard.py       checks of host, origin, content type and size
    app.py         the HTTP application
    static/        the page: plain ES modules

The rest of the package imports nothing from here. `serve` imports the web framework only when it is called.
"""

from __future__ import annotations

from capsnet.explorer.serving import DEFAULT_MODEL, serve

__all__ = ["DEFAULT_MODEL", "serve"]
