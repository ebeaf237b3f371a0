"""Build the HTTP application of a served model."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from capsnet._support.errors import CapsnetError, NotFinite
from capsnet._support.guard import Guard
from capsnet._support.version import __version__
from capsnet.inference.serving import metrics
from capsnet.inference.serving.batching import Batcher, Busy
from capsnet.inference.serving.model import OnnxModel
from capsnet.inference.serving.requests import MAX_IMAGES, Images, accepts, check_count, from_files, from_json

#: Environment variable that hands the settings to workers, as JSON.
SETTINGS = "CAPSNET_SERVE"


@dataclass(frozen=True)
class Settings:
    """What a worker needs to know."""

    model: str
    """Path of the ONNX file."""
    name: str
    """What the model is called in answers."""
    hosts: Sequence[str]
    """Host names that the server accepts."""
    threads: int = 1
    """Cores for one batch."""
    seconds: float = 30.0
    """Time limit of a request."""


class Prediction(BaseModel):
    """The class of an image."""

    label: str
    score: float
    """Score of that class, 0…1: the length of its capsule in a capsule network."""
    scores: dict[str, float]
    """Score of every class."""


class Predictions(BaseModel):
    """One prediction for each image of the request, in order."""

    predictions: list[Prediction]


class Problem(BaseModel):
    """Why a request was not answered."""

    detail: str


_IMAGE = {"type": "string", "format": "binary"}
_VALUE = {"anyOf": [{"type": "string", "contentEncoding": "base64"}, {"type": "array", "items": {}}]}
_BODY = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["images"],
                "properties": {"images": {"type": "array", "maxItems": MAX_IMAGES, "items": _VALUE}},
            }
        },
        "multipart/form-data": {"schema": {"type": "object", "additionalProperties": _IMAGE}},
        "image/*": {"schema": _IMAGE},
    },
}
_REASONS = {
    403: "The request came from another host or origin",
    408: "The request took too long to arrive",
    413: "The body is too large",
    415: "The content type is not supported",
    422: "The images cannot be read; `detail` gives the reason",
    500: "The model's scores are not finite",
    503: "Too many requests are waiting, or the model is not ready",
}


def from_environment() -> Settings:
    """Return the settings of a worker."""
    return Settings(**json.loads(os.environ[SETTINGS]))


def to_environment(settings: Settings) -> None:
    """Hand the settings to workers."""
    os.environ[SETTINGS] = json.dumps(asdict(settings))


def create_app(settings: Settings) -> FastAPI:
    """Build the application of one model.

    Raises:
        CapsnetError: the ONNX file cannot be served.
    """
    model = OnnxModel.open(Path(settings.model), settings.threads)

    def scores(images: Images) -> Images:
        metrics.BATCHES.observe(len(images))
        return model.scores(images)

    batcher, decoders = Batcher(scores), ThreadPoolExecutor(2, "decoder")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        model.scores(np.zeros((1, *model.image_shape), np.float32))  # allocates
        app.state.ready = True
        yield
        app.state.ready = False
        batcher.close()
        decoders.shutdown()

    app = FastAPI(
        title="capsnet",
        version=__version__,
        description=f"The model {settings.name}: images of {model.image_shape} in {len(model.class_names)} classes.",
        docs_url=None,  # the interactive documentation would load scripts from another server
        redoc_url=None,
        lifespan=lifespan,
        responses={status: {"model": Problem, "description": why} for status, why in _REASONS.items()},
    )
    app.state.ready = False

    @app.post("/predict", openapi_extra={"requestBody": _BODY}, response_model=Predictions)
    async def predict(request: Request) -> Response:
        """Classify 1 to 64 images: JSON with base64 or arrays, files in a form, or one picture file as the body."""
        start, status = time.perf_counter(), 500
        try:
            async with asyncio.timeout(settings.seconds):
                until = time.monotonic() + settings.seconds
                images = await _images(request, model.image_shape, decoders, until)
                rows = await batcher(images)
            answer = _answer(rows, model.class_names)
            status = 200
            metrics.IMAGES.inc(len(images))
            return answer
        except CapsnetError as error:
            status = 500 if isinstance(error, NotFinite) else 422
            return JSONResponse({"detail": str(error)}, status)
        except (Busy, TimeoutError) as error:
            status = 503
            why = str(error) or f"no answer within {settings.seconds:g} seconds"
            return JSONResponse({"detail": why}, status, {"retry-after": "1"})
        finally:
            metrics.REQUESTS.labels(status).inc()
            metrics.SECONDS.observe(time.perf_counter() - start)

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Say that the process runs."""
        return {"status": "ok", "model": settings.name, "version": __version__}

    @app.get("/ready")
    async def ready() -> Response:
        """Say whether the model is loaded and requests are accepted."""
        is_ready = bool(app.state.ready)
        return JSONResponse({"ready": is_ready}, 200 if is_ready else 503)

    @app.get("/metrics", response_class=Response)
    async def prometheus() -> Response:
        """Return counts and times for Prometheus."""
        return Response(metrics.exposition(), media_type=metrics.CONTENT_TYPE)

    app.add_middleware(Guard, hosts=tuple(settings.hosts), accepts=accepts, seconds=settings.seconds)
    return app


async def _images(
    request: Request, shape: tuple[int, int, int], decoders: ThreadPoolExecutor, until: float
) -> Images:
    """Decode the images in a thread: a file of a few hundred bytes may hold ten million pixels."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    body = await request.body()
    work: Any
    if kind == "application/json":
        work = lambda: from_json(body, shape, until)  # noqa: E731
    elif kind == "multipart/form-data":
        files = await _files(request)
        work = lambda: from_files(files, shape, until)  # noqa: E731
    else:
        work = lambda: from_files([("the body", body)], shape, until)  # noqa: E731
    return await asyncio.get_running_loop().run_in_executor(decoders, work)


async def _files(request: Request) -> list[tuple[str, bytes]]:
    """Return the files of a form."""
    from starlette.datastructures import UploadFile
    from starlette.exceptions import HTTPException

    try:
        async with request.form(max_files=MAX_IMAGES + 1, max_fields=MAX_IMAGES) as form:
            parts = [part for _, part in form.multi_items() if isinstance(part, UploadFile)]
            check_count(len(parts))
            return [(part.filename or "a file", await part.read()) for part in parts]
    except HTTPException as error:
        raise CapsnetError(f"the form cannot be read: {error.detail}") from error


def _answer(rows: Images, names: Sequence[str]) -> JSONResponse:
    if not np.isfinite(rows).all():
        raise NotFinite("the model's scores are not finite; its weights are too large")
    best = rows.argmax(axis=1)
    found = [
        {"label": names[at], "score": float(row[at]), "scores": dict(zip(names, row.tolist(), strict=True))}
        for at, row in zip(best, rows, strict=True)
    ]
    return JSONResponse({"predictions": found})
