"""The questions that can be asked, one function each. All answers come from the library, through one worker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, TypeVar

from fastapi import APIRouter, Depends, HTTPException, Query, Request

from capsnet.explorer import comparing, details, pictures, tracing
from capsnet.explorer import schemas as s
from capsnet.explorer.session import Session
from capsnet.explorer.testset import Background
from capsnet.explorer.worker import Worker

T = TypeVar("T")


class Service:
    """A session, the worker that computes what visitors wait for, and one for what may take seconds."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.worker = Worker()
        self.patient = Worker(niceness=15)
        self.testset = Background(session, self.patient)
        self.info = tracing.describe(session)
        self.meanings: dict[int, s.MeaningsResponse] = {}

    def close(self) -> None:
        """Stop computing."""
        self.worker.close()
        self.patient.close()

    async def compute(
        self, request: Request, run: str | None, work: Callable[[Session], T], *, patient: bool = False
    ) -> T:
        """Queue `work`; for a client that goes away while it waits, nothing is computed.

        Raises:
            HTTPException: the request is for another model than the one served.
            Busy: too many requests are waiting.
        """
        self.check_run(run)
        worker = self.patient if patient else self.worker
        job = worker.submit(lambda: work(self.session))
        answer: asyncio.Future[T] = asyncio.wrap_future(job)
        gone: asyncio.Future[None] = asyncio.ensure_future(_disconnected(request))
        try:
            await asyncio.wait((answer, gone), return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise HTTPException(499, "the client went away")
            return await answer
        finally:
            job.cancel()
            gone.cancel()

    def check_run(self, run: str | None) -> None:
        """Refuse a request that means another model."""
        if run is not None and run != self.session.run:
            raise HTTPException(404, f"no run {run!r} here: this explorer shows {self.session.run!r}")


async def _disconnected(request: Request) -> None:
    """Return when the client has gone. The body has been read, so nothing else can arrive."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


Here = Annotated[Service, Depends(_service)]
router = APIRouter(prefix="/api")


@router.get("/model")
async def model(here: Here, run: Annotated[str | None, Query(max_length=200)] = None) -> s.ModelInfo:
    """What is served."""
    here.check_run(run)
    return here.info


@router.get("/examples")
async def examples(here: Here) -> s.Examples:
    """Digits to pick."""
    session = here.session
    return s.Examples(
        source=session.dataset.name if session.dataset else "none",
        provenance=session.provenance,
        images=s.Array.of(session.pictures),
        labels=session.labels,
    )


@router.post("/trace")
async def trace(request: Request, here: Here, body: s.TraceRequest) -> s.TraceResponse:
    """A scene's whole way through the network."""
    return await here.compute(request, body.run, lambda session: tracing.trace_scene(session, body))


@router.post("/maps")
async def maps(request: Request, here: Here, body: s.Scene) -> s.MapsResponse:
    """All Conv1 maps."""
    return await here.compute(request, body.run, lambda session: tracing.all_maps(session, body))


@router.post("/pixel")
async def pixel(request: Request, here: Here, body: s.PixelRequest) -> s.PixelResponse:
    """One number of Conv1, with the patch and the kernel it comes from."""
    return await here.compute(request, body.run, lambda session: details.pixel(session, body))


@router.post("/child")
async def child(request: Request, here: Here, body: s.ChildRequest) -> s.ChildResponse:
    """One primary capsule and its vote for one class."""
    return await here.compute(request, body.run, lambda session: details.child(session, body))


@router.post("/pool")
async def pool(request: Request, here: Here, body: s.PoolRequest) -> s.PoolResponse:
    """One Conv1 map max-pooled, and another that pools to the same."""
    return await here.compute(request, body.run, lambda session: details.pool(session, body))


@router.post("/decode")
async def decode(request: Request, here: Here, body: s.CapsuleRequest) -> s.DecodeResponse:
    """What a class capsule with these numbers draws."""
    return await here.compute(request, body.run, lambda session: details.decode(session, body))


@router.post("/sheet")
async def sheet(request: Request, here: Here, body: s.CapsuleRequest) -> s.SheetResponse:
    """Each number of a capsule turned from −0.25 to 0.25."""
    return await here.compute(request, body.run, lambda session: details.sheet(session, body))


@router.get("/meanings")
async def meanings(
    request: Request, here: Here, number: Annotated[int, Query(ge=0, le=9999, description="A class.")]
) -> s.MeaningsResponse:
    """What each number of a class's capsule changes in the drawing."""
    if number not in here.meanings:
        here.meanings[number] = await here.compute(
            request, None, lambda session: details.meanings(session, number), patient=True
        )
    return here.meanings[number]


@router.post("/sweep")
async def sweep(request: Request, here: Here, body: s.SweepRequest) -> s.SweepResponse:
    """The first layer moved step by step, seen by the capsules and by the control."""
    return await here.compute(request, body.run, lambda session: comparing.sweep(session, body))


@router.post("/ablation")
async def ablation(request: Request, here: Here, body: s.Scene) -> s.AblationResponse:
    """A scene with uniform couplings, and with more and more routing."""
    return await here.compute(request, body.run, lambda session: comparing.ablation(session, body))


@router.post("/agents")
async def agents(request: Request, here: Here, body: s.AgentsRequest) -> s.AgentsResponse:
    """Routing by agreement among estate agents: the library's routing on estimates given by hand."""
    return await here.compute(request, None, lambda _: details.agents(body))


@router.get("/testset")
async def testset(here: Here) -> s.TestsetResponse:
    """Routing over the test set. The first question starts the count; ask again for the figures."""
    return here.testset.ask()


_ANY_PICTURE = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


@router.post("/picture", openapi_extra=_ANY_PICTURE)
async def picture(request: Request, here: Here) -> s.ImageResponse:
    """Bring a picture file to the model's size: light on dark, as digits are."""
    content = await request.body()
    return await here.compute(
        request, None, lambda session: pictures.read_picture(content, session.model.config.image_shape)
    )
