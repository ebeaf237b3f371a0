"""Define the schemas of the model, the example digits and refused requests."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

from capsnet.explorer.schemas.base import MAX_ITERATIONS, Array


class Problem(BaseModel):
    """Give the reason why a request was refused."""

    detail: str


class Geometry(BaseModel):
    """Hold the sizes of the network. Sizes of a part that it does not have are 0."""

    image_shape: tuple[int, int, int]
    stem_channels: int
    stem_kernel: int
    stem_stride: int
    maps: tuple[int, int]
    primary_types: int
    primary_dim: int
    primary_kernel: int
    primary_stride: int
    grid: tuple[int, int]
    in_caps: int
    classes: int
    class_dim: int
    iterations: int
    leaky: bool
    bias: bool


class Control(BaseModel):
    """Describe the control network."""

    name: str
    architecture: str
    parameters: int
    test_error: float | None
    features: int
    """Size of its last hidden layer."""


class ModelInfo(BaseModel):
    """Describe the served model."""

    run: str
    architecture: str
    routing: str
    """Name of the routing to the class capsules."""
    measure: Literal["length", "activation"]
    """What says that a class capsule's class is present."""
    absent: dict[str, str]
    """Part of the page that does not apply to this model → the reason, a sentence."""
    parameters: int
    class_names: list[str]
    geometry: Geometry
    has_decoder: bool
    test_error: float | None
    tested_on: str | None
    trained_on: str | None
    control: Control | None
    overview_channels: list[int]
    """Conv1 maps in the overview: the ones that vary most between digits."""
    max_iterations: int = MAX_ITERATIONS
    """1 for a routing in one pass."""


class Examples(BaseModel):
    """Hold the example digits, from the test set."""

    source: str
    provenance: str
    images: Array
    """uint8 (examples, channels, height, width)"""
    labels: list[list[int]]
