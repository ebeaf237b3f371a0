"""Define the requests."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from capsnet.explorer.schemas.base import (
    MAX_NUMBERS,
    MAX_POOL,
    ClassNumber,
    Iterations,
    Parameter,
    Pixel,
    Strict,
)


class Transform(Strict):
    """Define an affine map about the image's centre: scale, shear, rotate, then move."""

    rotation: Annotated[float, Field(ge=-360, le=360, description="degrees, counter-clockwise")] = 0.0
    shear: Annotated[float, Field(ge=-2, le=2, description="x moves by shear · y")] = 0.0
    scale_x: Annotated[float, Field(ge=0.1, le=5)] = 1.0
    scale_y: Annotated[float, Field(ge=0.1, le=5)] = 1.0
    shift_x: Annotated[float, Field(ge=-128, le=128, description="pixels to the right")] = 0.0
    shift_y: Annotated[float, Field(ge=-128, le=128, description="pixels down")] = 0.0


class Layer(Strict):
    """Hold one digit: channels · height · width pixels, and its transform."""

    pixels: Annotated[list[Pixel], Field(min_length=1, max_length=MAX_NUMBERS)]
    transform: Transform = Transform()


class Scene(Strict):
    """Define the input: one digit, or two digits added and clipped at 1."""

    run: str | None = Field(
        None,
        max_length=200,
        description="Name of the model; the request is refused if another one is served.",
    )
    layers: Annotated[list[Layer], Field(min_length=1, max_length=2)]


class TraceRequest(Scene):
    """Ask for every intermediate value of the network."""

    iterations: Iterations = 3
    focus: ClassNumber | None = Field(
        None, description="Class whose votes are shown. Default: the class of the longest capsule."
    )


class PixelRequest(Scene):
    """Ask for one value of one Conv1 map."""

    channel: int = Field(ge=0, le=99999)
    row: int = Field(ge=0, le=9999)
    column: int = Field(ge=0, le=9999)


class ChildRequest(Scene):
    """Ask for one primary capsule and its vote for one class."""

    iterations: Iterations = 3
    child: int = Field(ge=0, le=9_999_999)
    parent: ClassNumber


class CapsuleRequest(Strict):
    """Give the values of a class capsule to decode."""

    run: str | None = Field(None, max_length=200)
    number: ClassNumber = Field(description="Class of the capsule.")
    pose: Annotated[
        list[Annotated[float, Field(ge=-100, le=100)]],
        Field(min_length=1, max_length=512),
    ]


class SweepRequest(Scene):
    """Ask for a sweep: the first layer moves step by step along one parameter."""

    parameter: Parameter = "rotation"
    focus: ClassNumber | None = None


class PoolRequest(Scene):
    """Ask for one Conv1 map, max-pooled."""

    channel: int = Field(ge=0, le=99999)
    size: int = Field(2, ge=2, le=MAX_POOL, description="Side of the pooling windows.")


Estimate = Annotated[float, Field(ge=-100, le=100)]
Estimates = Annotated[list[Annotated[list[Estimate], Field(min_length=2, max_length=2)]], Field(min_length=1)]


class AgentsRequest(Strict):
    """Give votes by hand: estimates of estate agents, (agents, houses, 2)."""

    estimates: Annotated[list[Annotated[Estimates, Field(max_length=8)]], Field(min_length=1, max_length=50)]
    iterations: Iterations = 3
