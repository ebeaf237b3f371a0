"""Serve the explorer: a local web page that shows each step of a capsule network.

    serving.py     `capsnet explore`: load, listen, open the browser
    session.py     the model, its control network and the example digits
    schemas/       requests and responses
    programs/      the page's questions as tensor programs, for the server and for the browser
    answering.py   a request → its program → the response
    describing.py  the model, its examples, and what the numbers of a capsule mean
    absent.py      parts of the page that do not apply to a model
    testset.py     whether routing matters, measured on the test set in the background
    pictures.py    a visitor's picture file → pixels
    page.py        the page's files
    site/          the explorer of a run as static files
    worker.py      a thread that computes queued requests one at a time
    guard.py       which content types and sizes the server accepts
    app.py         the HTTP application; api.py, its endpoints; openapi.py, their description
    typescript.py  the page's types, generated from schemas/
    static/        the page: plain ES modules

The rest of the package imports nothing from here. `serve` imports the web framework only when it is called.
"""

from __future__ import annotations

from capsnet.explorer.serving import DEFAULT_MODEL, serve

__all__ = ["DEFAULT_MODEL", "serve"]
