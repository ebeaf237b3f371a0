"""One unit's arithmetic, and what capsules draw."""

from __future__ import annotations

from pydantic import BaseModel

from capsnet.explorer.schemas.base import Array


class MapsResponse(BaseModel):
    """All Conv1 maps."""

    maps: Array
    kernels: Array
    """(channels, image channels, kernel, kernel)"""


class PixelResponse(BaseModel):
    """relu(w · x + b) with its numbers."""

    patch: Array
    kernel: Array
    products: Array
    dot: float
    bias: float
    value: float
    top: int
    left: int


class ChildResponse(BaseModel):
    """One child, and what it tells one parent."""

    child: int
    type: int
    row: int
    column: int
    field: tuple[int, int, int, int]
    """Pixels it sees: top, left, bottom, right (the last two beyond)"""
    before: Array
    """s, before squash"""
    u: Array
    before_length: float
    length: float
    weight: Array
    """W (class_dim, primary_dim), so that û = W u"""
    vote: Array
    logits: Array
    """(iterations, classes)"""
    couplings: Array
    """(iterations, classes)"""
    agreement: list[float]
    """û · v for this parent, per iteration"""
    squash_curve: Array
    """(points, 2): ‖s‖ and ‖squash(s)‖, to beyond this capsule's ‖s‖"""


class ImageResponse(BaseModel):
    """A picture."""

    image: Array


class DecodeResponse(BaseModel):
    """What a changed capsule draws."""

    image: Array
    length: float


class SheetResponse(BaseModel):
    """Every number of a capsule turned, one row each."""

    offsets: list[float]
    images: Array
    """(dim, offsets, channels, height, width)"""


class Meaning(BaseModel):
    """What one number of a class's capsule does to the drawing."""

    measure: str
    correlation: float


class MeaningsResponse(BaseModel):
    """For each number of the capsule, what it changes, if anything clearly."""

    examples: int
    meanings: list[Meaning | None]
