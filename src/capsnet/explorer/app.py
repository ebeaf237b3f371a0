"""Build the HTTP application: the API, the page's files and the error responses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from math import prod
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles

from capsnet._support.errors import CapsnetError, shown
from capsnet._support.guard import Guard
from capsnet._support.sockets import LOOPBACK
from capsnet._support.version import __version__
from capsnet.explorer.api import Service, router
from capsnet.explorer.guard import accepts
from capsnet.explorer.openapi import describe_sizes
from capsnet.explorer.page import STATIC
from capsnet.explorer.schemas import Problem
from capsnet.explorer.schemas.base import MAX_NUMBERS
from capsnet.explorer.session import Session
from capsnet.explorer.worker import Busy

_REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "The body is not JSON"},
    403: {"model": Problem, "description": "The request came from another host or origin"},
    404: {"model": Problem, "description": "The server shows another model"},
    413: {"model": Problem, "description": "The body is too large"},
    415: {"model": Problem, "description": "The content type is not supported"},
    422: {"model": Problem, "description": "The request is invalid; `detail` gives the reason"},
    429: {"model": Problem, "description": "Too many requests are waiting"},
}


def create_app(session: Session, hosts: Iterable[str] = LOOPBACK) -> FastAPI:
    """Create the explorer of one model as an ASGI application.

    Args:
        session: the model and data to show.
        hosts: host names that the server accepts.
    """
    shape = session.model.config.image_shape
    if prod(shape) > MAX_NUMBERS:
        raise CapsnetError(
            f"{shown(session.run)} takes images of {shape} (channels, height, width); the explorer shows images of at "
            f"most {MAX_NUMBERS:,} numbers"
        )
    service = Service(session)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.close)

    app = FastAPI(
        title="capsnet explorer",
        version=__version__,
        description="All values that a capsule network computes for an image. "
        "Arrays are little-endian numbers in base64.",
        # The interactive documentation would load scripts from another server.
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        responses=_REFUSALS,
    )
    app.state.service = service
    app.include_router(router)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(CapsnetError, _wrong)
    app.add_exception_handler(Busy, _busy)
    describe_sizes(app, service.info.geometry)
    app.mount("/", StaticFiles(directory=STATIC, html=True), name="page")
    app.add_middleware(Guard, hosts=tuple(hosts), accepts=accepts)
    return app


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    """Answer with one line, without the input, which may be large or not JSON."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return JSONResponse({"detail": f"{where}: {first['msg']}"[:500]}, 422)


async def _wrong(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, 422)


async def _busy(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, 429, {"retry-after": "1"})
