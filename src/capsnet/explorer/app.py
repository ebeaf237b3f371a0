"""HTTP: the API, the page's files, and how refusals look."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles

from capsnet._support.errors import CapsnetError
from capsnet._support.version import __version__
from capsnet.explorer.api import Service, router
from capsnet.explorer.guard import Guard
from capsnet.explorer.openapi import describe_sizes
from capsnet.explorer.schemas import Problem
from capsnet.explorer.session import Session
from capsnet.explorer.worker import Busy

STATIC = Path(__file__).parent / "static"
LOOPBACK = ("127.0.0.1", "localhost", "::1")

_REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "The body is no JSON"},
    403: {"model": Problem, "description": "Another host or origin"},
    404: {"model": Problem, "description": "This server shows another model"},
    413: {"model": Problem, "description": "Too large"},
    415: {"model": Problem, "description": "Unsuitable content type"},
    422: {"model": Problem, "description": "The request makes no sense; `detail` says why"},
    429: {"model": Problem, "description": "Too many requests are waiting"},
}


def create_app(session: Session, hosts: Iterable[str] = LOOPBACK) -> FastAPI:
    """The explorer of one model as an ASGI application.

    Args:
        session: what is shown.
        hosts: names by which the server may be addressed.
    """
    service = Service(session)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.close)

    app = FastAPI(
        title="capsnet explorer",
        version=__version__,
        description="What a capsule network computes for a picture. Arrays are base64 of little-endian numbers.",
        # The interactive documentation would be fetched from another server.
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
    describe_sizes(app, session.model.config)
    app.mount("/", StaticFiles(directory=STATIC, html=True), name="page")
    app.add_middleware(Guard, hosts=tuple(hosts))
    return app


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    """One line, without the input: it may be NaN, which is no JSON, or megabytes."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return JSONResponse({"detail": f"{where}: {first['msg']}"[:500]}, 422)


async def _wrong(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, 422)


async def _busy(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, 429, {"retry-after": "1"})
