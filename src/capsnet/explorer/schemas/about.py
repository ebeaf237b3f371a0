"""What the page is told once: the model, the digits to pick, and why a request was refused."""

from __future__ import annotations

from pydantic import BaseModel

from capsnet.explorer.schemas.base import MAX_ITERATIONS, Array


class Problem(BaseModel):
    """Why a request was refused."""

    detail: str


class Geometry(BaseModel):
    """Sizes of the network."""

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
    """The network beside it."""

    name: str
    architecture: str
    parameters: int
    test_error: float | None
    features: int
    """Numbers in its last hidden layer."""


class ModelInfo(BaseModel):
    """What is served."""

    run: str
    parameters: int
    class_names: list[str]
    geometry: Geometry
    has_decoder: bool
    test_error: float | None
    tested_on: str | None
    trained_on: str | None
    control: Control | None
    overview_channels: list[int]
    """Conv1 maps that differ most between digits: the ones the overview shows."""
    max_iterations: int = MAX_ITERATIONS


class Examples(BaseModel):
    """Digits to pick, of the test set."""

    source: str
    provenance: str
    images: Array
    """uint8 (examples, channels, height, width)"""
    labels: list[list[int]]
