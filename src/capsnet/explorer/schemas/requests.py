"""What the page asks for."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from capsnet.explorer.schemas.base import MAX_NUMBERS, ClassNumber, Iterations, Parameter, Pixel, Strict


class Transform(Strict):
    """An affine map about the image's centre: scale, then shear, then rotate, then move."""

    rotation: Annotated[float, Field(ge=-360, le=360, description="degrees, counter-clockwise")] = 0.0
    shear: Annotated[float, Field(ge=-2, le=2, description="x moves by shear · y")] = 0.0
    scale_x: Annotated[float, Field(ge=0.1, le=5)] = 1.0
    scale_y: Annotated[float, Field(ge=0.1, le=5)] = 1.0
    shift_x: Annotated[float, Field(ge=-128, le=128, description="pixels to the right")] = 0.0
    shift_y: Annotated[float, Field(ge=-128, le=128, description="pixels down")] = 0.0


class Layer(Strict):
    """One digit: its pixels (channels · height · width of them), and where it is put."""

    pixels: Annotated[list[Pixel], Field(min_length=1, max_length=MAX_NUMBERS)]
    transform: Transform = Transform()


class Scene(Strict):
    """What the network looks at: one digit or two on top of each other, added and clipped at 1."""

    run: str | None = Field(None, max_length=200, description="Refuse unless this model is served.")
    layers: Annotated[list[Layer], Field(min_length=1, max_length=2)]


class TraceRequest(Scene):
    """The way through the network."""

    iterations: Iterations = 3
    focus: ClassNumber | None = Field(
        None, description="Class whose votes are shown; the longest by default."
    )


class PixelRequest(Scene):
    """One number of one Conv1 map."""

    channel: int = Field(ge=0, le=99999)
    row: int = Field(ge=0, le=9999)
    column: int = Field(ge=0, le=9999)


class ChildRequest(Scene):
    """One primary capsule and its vote for one class."""

    iterations: Iterations = 3
    child: int = Field(ge=0, le=9_999_999)
    parent: ClassNumber


class CapsuleRequest(Strict):
    """A class capsule's numbers, changed by hand."""

    run: str | None = Field(None, max_length=200)
    number: ClassNumber = Field(description="Whose capsule speaks.")
    pose: Annotated[
        list[Annotated[float, Field(ge=-100, le=100)]],
        Field(min_length=1, max_length=512),
    ]


class SweepRequest(Scene):
    """The first layer moved step by step along one parameter."""

    parameter: Parameter = "rotation"
    focus: ClassNumber | None = None


class PoolRequest(Scene):
    """One Conv1 map, max-pooled."""

    channel: int = Field(ge=0, le=99999)
    size: int = Field(2, ge=2, le=8, description="Windows of size × size.")


Estimate = Annotated[float, Field(ge=-100, le=100)]
Estimates = Annotated[list[Annotated[list[Estimate], Field(min_length=2, max_length=2)]], Field(min_length=1)]


class AgentsRequest(Strict):
    """What estate agents say about houses: (agents, houses, 2) numbers. Votes that are given, not computed."""

    estimates: Annotated[list[Annotated[Estimates, Field(max_length=8)]], Field(min_length=1, max_length=50)]
    iterations: Iterations = 3
