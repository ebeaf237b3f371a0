"""Define the API's endpoints, one function each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, TypeVar

from fastapi import APIRouter, Depends, HTTPException, Query, Request
from pydantic import BaseModel

from capsnet._support.errors import CapsnetError
from capsnet.explorer import describing, pictures
from capsnet.explorer import schemas as s
from capsnet.explorer.answering import answer
from capsnet.explorer.programs.program import Answer
from capsnet.explorer.session import Session
from capsnet.explorer.testset import Background
from capsnet.explorer.worker import Worker

T = TypeVar("T")


class Service:
    """Hold a session, a worker for quick requests and one for slow ones."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.worker = Worker()
        self.patient = Worker(niceness=15)
        self.testset = Background(session, self.patient)
        self.info = describing.describe(session)
        self.meanings: dict[int, s.MeaningsResponse] = {}

    def close(self) -> None:
        """Stop both workers."""
        self.worker.close()
        self.patient.close()

    async def compute(
        self, request: Request, run: str | None, work: Callable[[Session], T], *, patient: bool = False
    ) -> T:
        """Queue `work` and wait for its result; drop it if the client disconnects.

        Raises:
            HTTPException: the request names another model, or the client disconnected.
            Busy: too many requests are waiting.
        """
        self.check_run(run)
        worker = self.patient if patient else self.worker
        job = worker.submit(lambda: work(self.session))
        result: asyncio.Future[T] = asyncio.wrap_future(job)
        gone: asyncio.Future[None] = asyncio.ensure_future(_disconnected(request))
        try:
            await asyncio.wait((result, gone), return_when=asyncio.FIRST_COMPLETED)
            if not result.done():
                raise HTTPException(499, "the client disconnected")
            return await result
        finally:
            job.cancel()
            gone.cancel()

    async def answer(self, request: Request, name: str, body: BaseModel, kind: type[Answer]) -> Answer:
        """Run the program of an endpoint for a request; see `compute`."""
        run = getattr(body, "run", None)
        return await self.compute(request, run, lambda session: answer(session, name, body, kind))

    def check_run(self, run: str | None) -> None:
        """Raise HTTPException if the request names another model."""
        if run is not None and run != self.session.run:
            raise HTTPException(404, f"this explorer shows the model {self.session.run!r}, not {run!r}")


async def _disconnected(request: Request) -> None:
    """Wait until the client disconnects; the body has already been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


Here = Annotated[Service, Depends(_service)]
router = APIRouter(prefix="/api")


@router.get("/model")
async def model(here: Here, run: Annotated[str | None, Query(max_length=200)] = None) -> s.ModelInfo:
    """Describe the served model."""
    here.check_run(run)
    return here.info


@router.get("/examples")
async def examples(here: Here) -> s.Examples:
    """Return the example digits."""
    return describing.examples(here.session)


@router.post("/trace")
async def trace(request: Request, here: Here, body: s.TraceRequest) -> s.TraceResponse:
    """Trace a scene through the whole network."""
    return await here.answer(request, "trace", body, s.TraceResponse)


@router.post("/maps")
async def maps(request: Request, here: Here, body: s.Scene) -> s.MapsResponse:
    """Return all Conv1 maps of a scene."""
    return await here.answer(request, "maps", body, s.MapsResponse)


@router.post("/pixel")
async def pixel(request: Request, here: Here, body: s.PixelRequest) -> s.PixelResponse:
    """Return one value of Conv1, with its patch and kernel."""
    return await here.answer(request, "pixel", body, s.PixelResponse)


@router.post("/child")
async def child(request: Request, here: Here, body: s.ChildRequest) -> s.ChildResponse:
    """Return one primary capsule and its vote for one class."""
    return await here.answer(request, "child", body, s.ChildResponse)


@router.post("/pool")
async def pool(request: Request, here: Here, body: s.PoolRequest) -> s.PoolResponse:
    """Max-pool one Conv1 map, and a different map with the same pooled result."""
    return await here.answer(request, "pool", body, s.PoolResponse)


@router.post("/decode")
async def decode(request: Request, here: Here, body: s.CapsuleRequest) -> s.DecodeResponse:
    """Decode a class capsule with the given values."""
    return await here.answer(request, "decode", body, s.DecodeResponse)


@router.post("/sheet")
async def sheet(request: Request, here: Here, body: s.CapsuleRequest) -> s.SheetResponse:
    """Decode a capsule with each dimension changed from −0.25 to 0.25."""
    return await here.answer(request, "sheet", body, s.SheetResponse)


@router.get("/meanings")
async def meanings(
    request: Request, here: Here, number: Annotated[int, Query(ge=0, le=9999, description="A class.")]
) -> s.MeaningsResponse:
    """Return what each dimension of a class capsule changes in the drawing."""
    if number not in here.meanings:
        here.meanings[number] = await here.compute(
            request, None, lambda session: describing.meanings(session, number), patient=True
        )
    return here.meanings[number]


@router.post("/sweep")
async def sweep(request: Request, here: Here, body: s.SweepRequest) -> s.SweepResponse:
    """Move the first layer step by step, and compare the capsules with the control."""
    return await here.answer(request, "sweep", body, s.SweepResponse)


@router.post("/ablation")
async def ablation(request: Request, here: Here, body: s.Scene) -> s.AblationResponse:
    """Classify a scene with different numbers of routing iterations."""
    return await here.answer(request, "ablation", body, s.AblationResponse)


@router.post("/agents")
async def agents(request: Request, here: Here, body: s.AgentsRequest) -> s.AgentsResponse:
    """Route the estimates of estate agents, given by hand, with the library's routing."""
    return await here.answer(request, "agents", body, s.AgentsResponse)


@router.get("/testset")
async def testset(here: Here) -> s.TestsetResponse:
    """Compare numbers of routing iterations on the test set.

    The first request starts the measurement; later requests return the progress and then the results.
    """
    if "ablation" in here.session.absent:
        raise CapsnetError(here.session.absent["ablation"])
    return here.testset.ask()


_ANY_PICTURE = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


@router.post("/picture", openapi_extra=_ANY_PICTURE)
async def picture(request: Request, here: Here) -> s.ImageResponse:
    """Convert a picture file to the model's size, light on dark if the model's images are."""
    content = await request.body()
    return await here.compute(
        request,
        None,
        lambda session: pictures.read_picture(content, session.model.config.image_shape, session.inverts),
    )
