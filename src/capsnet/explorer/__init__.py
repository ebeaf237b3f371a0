"""The explorer: a local page on which a capsule network can be watched thinking.

    session.py     what is shown: a model, its control, digits to pick
    schemas/       requests and responses
    scene.py       the visitor's layers → the network's input
    tracing.py     one scene → everything on the way through the network
    details.py     one unit's arithmetic: a Conv1 pixel, a capsule, a vote
    comparing.py   sweeps beside the max-pooling control, routing ablations
    worker.py      one thread computes; requests queue
    guard.py       who may ask, and how much
    app.py         HTTP
    static/        the page: plain ES modules

Nothing here is imported by the rest of the package; `serve` imports the web framework when it is called.
"""

from __future__ import annotations

from capsnet.explorer.serving import DEFAULT_MODEL, serve

__all__ = ["DEFAULT_MODEL", "serve"]
