"""Answer requests: check that they fit the model, run the program, and pack its outputs."""

from __future__ import annotations

from pydantic import BaseModel
from torch import Tensor

from capsnet._support.errors import CapsnetError
from capsnet.explorer import schemas as s
from capsnet.explorer.absent import ENDPOINTS
from capsnet.explorer.programs.program import Answer, response
from capsnet.explorer.session import Session
from capsnet.models.protocols import Decodes, decodes


def answer(session: Session, name: str, request: BaseModel, kind: type[Answer]) -> Answer:
    """Run the program of an endpoint.

    Args:
        session: the model and its programs.
        name: of the endpoint.
        request: what the page asks.
        kind: the type of the answer.

    Raises:
        CapsnetError: the request does not fit the model: a layer has another size, a class or unit does not exist, or
            the model has no decoder.
    """
    if (part := ENDPOINTS.get(name)) in session.absent:
        raise CapsnetError(session.absent[part])
    check_fit(session, request)
    outputs: dict[str, Tensor] = session.programs[name].run(request)
    given = {"parameter": request.parameter} if isinstance(request, s.SweepRequest) else {}
    return response(kind, outputs, **given)


def check_fit(session: Session, request: BaseModel) -> None:
    """Raise CapsnetError if a request does not fit the model."""
    config = session.model.config
    if isinstance(request, s.Scene):
        _check_layers(request.layers, config.image_shape)
    for name in ("focus", "number", "parent"):
        if getattr(request, name, None) is not None:
            check_class(session, getattr(request, name))
    if isinstance(request, s.ChildRequest) and request.child >= session.in_caps:
        raise CapsnetError(
            f"child {request.child} does not exist; the children are numbered 0 to {session.in_caps - 1}"
        )
    if isinstance(request, s.PixelRequest | s.PoolRequest):
        _check_spot(session, request)
    if isinstance(request, s.CapsuleRequest):
        check_decoder(session)
        if len(request.pose) != session.class_dim:
            raise CapsnetError(
                f"a class capsule of this model has {session.class_dim} numbers, not {len(request.pose)}"
            )
    if isinstance(request, s.AgentsRequest) and len({len(agent) for agent in request.estimates}) > 1:
        raise CapsnetError("every agent must give an estimate for every house")


def check_class(session: Session, number: int) -> int:
    """Return the class number.

    Raises:
        CapsnetError: the model does not have this class.
    """
    classes = session.model.config.num_classes
    if number >= classes:
        raise CapsnetError(f"class {number} does not exist; this model has {classes}, numbered from 0")
    return number


def check_decoder(session: Session) -> Decodes:
    """Return the model.

    Raises:
        CapsnetError: it has no decoder.
    """
    if not decodes(session.model):
        raise CapsnetError(
            session.absent.get(
                "reconstruction", "this model was trained without a decoder, so it cannot draw"
            )
        )
    return session.model


def _check_layers(layers: list[s.Layer], image_shape: tuple[int, int, int]) -> None:
    channels, height, width = image_shape
    for number, layer in enumerate(layers, 1):
        if len(layer.pixels) != channels * height * width:
            raise CapsnetError(
                f"layer {number} has {len(layer.pixels)} pixels; this model takes "
                f"{channels}·{height}·{width} = {channels * height * width}"
            )


def _check_spot(session: Session, request: s.PixelRequest | s.PoolRequest) -> None:
    channels, (rows, columns) = session.model.config.stem_channels, session.maps
    if isinstance(request, s.PoolRequest):
        if request.channel >= channels or request.size > min(rows, columns):
            raise CapsnetError(
                f"Conv1 has {channels} maps of {rows}×{columns}; channel {request.channel} with windows of "
                f"{request.size}×{request.size} does not fit"
            )
    elif request.channel >= channels or request.row >= rows or request.column >= columns:
        raise CapsnetError(
            f"Conv1 has {channels} maps of {rows}×{columns}; channel, row and column count from 0 and must be inside"
        )
