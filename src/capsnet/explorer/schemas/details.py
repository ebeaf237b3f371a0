"""Define the responses with one unit's arithmetic or a capsule's drawing."""

from __future__ import annotations

from pydantic import BaseModel

from capsnet.explorer.schemas.base import Array


class MapsResponse(BaseModel):
    """Hold all Conv1 maps."""

    maps: Array
    kernels: Array
    """(channels, image channels, kernel, kernel)"""


class PixelResponse(BaseModel):
    """Hold relu(w · x + b) with all its terms."""

    patch: Array
    kernel: Array
    products: Array
    dot: float
    bias: float
    value: float
    top: int
    left: int


class ChildResponse(BaseModel):
    """Hold one child capsule and its vote for one parent."""

    child: int
    type: int | None
    """null, as the next five, unless the model is a CapsNet"""
    row: int | None
    column: int | None
    field: tuple[int, int, int, int] | None
    """Receptive field in pixels: top, left, bottom, right (the last two exclusive)"""
    before: Array | None
    """s, before squash"""
    before_length: float | None
    u: Array
    """A vector, or the rows of a matrix."""
    length: float
    """‖u‖, at most 1, or the child's activation"""
    weight: Array
    """W (out_dim, in_dim), with û = W u; for matrices û = u Wᵀ"""
    vote: Array
    """A vector, or the rows of a matrix."""
    logits: Array
    """(iterations, classes)"""
    couplings: Array
    """(iterations, classes)"""
    agreement: list[float]
    """û · v for this parent, per iteration"""
    squash_curve: Array | None
    """(points, 2): ‖s‖ and ‖squash(s)‖, beyond this capsule's ‖s‖"""


class ImageResponse(BaseModel):
    """Hold an image."""

    image: Array


class DecodeResponse(BaseModel):
    """Hold the drawing of a changed capsule."""

    image: Array
    length: float


class SheetResponse(BaseModel):
    """Hold the drawings for each dimension of a capsule, one row each."""

    offsets: list[float]
    images: Array
    """(dim, offsets, channels, height, width)"""


class Meaning(BaseModel):
    """Describe what one dimension of a class capsule changes in the drawing."""

    measure: str
    correlation: float


class MeaningsResponse(BaseModel):
    """Hold the meaning of each dimension, or null without a clear one."""

    examples: int
    meanings: list[Meaning | None]
