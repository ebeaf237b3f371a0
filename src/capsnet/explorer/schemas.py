"""What goes over the wire. Arrays travel as base64 of little-endian numbers: exact, and small."""

from __future__ import annotations

import base64
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

#: No picture of a model here has more numbers; the model's own size is checked afterwards.
MAX_NUMBERS = 3 * 128 * 128
MAX_ITERATIONS = 10

Pixel = Annotated[float, Field(ge=0, le=1)]
ClassNumber = Annotated[int, Field(ge=0, le=9999)]
Iterations = Annotated[int, Field(ge=1, le=MAX_ITERATIONS, description="Routing iterations r.")]
Parameter = Literal["rotation", "shift_x", "shift_y", "scale", "shear"]


class Strict(BaseModel):
    """Unknown fields are refused (a misspelt option must not pass for its default), and so are NaN and ∞."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Array(BaseModel):
    """Numbers in C order; `data` is base64 of their little-endian bytes."""

    shape: list[int]
    dtype: Literal["float32", "uint8"] = "float32"
    data: str

    @classmethod
    def of(cls, tensor: Tensor) -> Self:
        """Pack a tensor: uint8 stays, everything else becomes float32."""
        array = tensor.detach().cpu().numpy()
        dtype: Literal["float32", "uint8"] = "uint8" if array.dtype == np.uint8 else "float32"
        packed = np.ascontiguousarray(array.astype("u1" if dtype == "uint8" else "<f4"))
        return cls(shape=list(array.shape), dtype=dtype, data=base64.b64encode(packed.data).decode("ascii"))


# Requests


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


# Responses


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


class Cloud(BaseModel):
    """Votes for one class on a plane. Across: along the class's final vector v, so that a vote's place times
    ‖v‖ is its agreement û·v. Down: the main direction of what remains."""

    focus: int
    points: Array
    """(in_caps, 2) the votes û"""
    mean: Array
    """(iterations, 2) their mean, weighted by the couplings"""
    spread: Array
    """(iterations, 2, 2) their covariance, weighted by the couplings"""
    outputs: Array
    """(iterations, 2) the class's vector v"""
    rms: list[float]
    """Per iteration: root mean square distance from the weighted mean, in all dimensions."""
    shown: float
    """Share of the votes' sum of squares that lies in this plane."""


class TraceResponse(BaseModel):
    """One scene through the network."""

    image: Array
    layers: Array
    """(layers, channels, height, width): each transformed, before they are added"""
    outlines: Array
    """(layers, 4, 2): corners of each layer's frame, pixels (across, down), clockwise from the top left"""
    maps: Array
    """(overview channels, rows, columns) Conv1 after its ReLU"""
    primary: Array
    """(in_caps, primary_dim)"""
    primary_lengths: Array
    """(in_caps,)"""
    arrows: Array
    """(in_caps, 2): each primary capsule on its type's plane of most variation, its length kept"""
    couplings: Array
    """(iterations, in_caps, classes)"""
    support: Array
    """(iterations, rows, columns, classes): Σ over types of c û·v/‖v‖. Over all places it sums to ‖s‖."""
    sums: Array
    """(iterations, classes): ‖s‖ before squash"""
    iteration_lengths: Array
    """(iterations, classes): ‖v‖"""
    entropy: list[float]
    """Of the couplings, per iteration; 1 is undecided."""
    lengths: Array
    """(classes,): ‖v‖ of the last iteration"""
    capsules: Array
    """(classes, class_dim)"""
    ranking: list[int]
    """Classes, the longest first."""
    speakers: list[int]
    """As many of the longest as there are layers, in the layers' order: each draws its layer best."""
    reconstructions: Array | None
    """(classes, channels, height, width): each class capsule decoded alone"""
    reconstruction_errors: list[float] | None
    """Sum of squared differences from the input, per class."""
    cloud: Cloud
    control: Array | None
    """(classes,): the control's scores"""
    seconds: float


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


class SweepResponse(BaseModel):
    """Capsules and control along one parameter; `values` has 0 (or 1 for scale) in it: where both begin."""

    parameter: Parameter
    values: list[float]
    origin: int
    focus: int
    images: Array
    reconstructions: Array | None
    lengths: Array
    """(steps, classes)"""
    pose_change: list[float]
    """‖Φ(Tx) − Φ(x)‖ / ‖Φ(x)‖ of the class capsule's numbers"""
    direction_change: list[float]
    """degrees between the class capsule's directions"""
    pose_path: Array
    """(steps, 2): the class capsule's numbers on their two main directions"""
    pose_shown: float
    control_scores: Array | None
    feature_change: list[float] | None
    feature_path: Array | None
    feature_shown: float | None


class PoolResponse(BaseModel):
    """One map, what pooling keeps of it, and another map that pools to the same."""

    size: int
    map: Array
    pooled: Array
    winners: Array
    """(rows, columns, 2): row and column of each window's largest number"""
    shuffled: Array
    """The numbers of each window in another order"""
    shuffled_pooled: Array
    moved: float
    """Mean distance, in pixels, by which the largest numbers were moved; pooling cannot tell"""


class AgentsResponse(BaseModel):
    """Whom each house listened to."""

    couplings: Array
    """(iterations, agents, houses)"""
    outputs: Array
    """(iterations, houses, 2): v"""
    means: Array
    """(iterations, houses, 2): the agents' estimates, weighted by the couplings"""
    lengths: Array
    """(iterations, houses): ‖v‖"""


class AblationRow(BaseModel):
    """One number of iterations. 1 is no routing: uniform couplings."""

    iterations: int
    lengths: list[float]
    ranking: list[int]
    entropy: float
    moved: float
    """Mean |change| of the couplings from uniform"""


class AblationResponse(BaseModel):
    """Routing more, less and not at all, for one scene."""

    rows: list[AblationRow]
    dead_children: float
    """Share of primary capsules shorter than 0.01 for this image"""


class TestRow(BaseModel):
    """One number of iterations over the test set."""

    iterations: int
    errors: int
    n: int
    error: float
    interval: tuple[float, float]
    changed: int
    """Answers that differ from the model's own number of iterations"""
    winner: float
    """Mean length of the longest capsule"""
    runner_up: float
    entropy: float


class TestsetResponse(BaseModel):
    """Over the test set; `rows` is empty until all is computed."""

    source: str
    done: int
    total: int
    rows: list[TestRow]
    dead_children: float | None
    """Share of primary capsules shorter than 0.01 for every test image"""
    control_error: float | None
    control_interval: tuple[float, float] | None
