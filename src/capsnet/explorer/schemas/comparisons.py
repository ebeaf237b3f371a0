"""Define the responses of sweeps, pooling, agents and ablations."""

from __future__ import annotations

from pydantic import BaseModel

from capsnet.explorer.schemas.base import Array, Parameter


class SweepResponse(BaseModel):
    """Hold capsules and control along one parameter.

    `values[origin]` is 0, or 1 for a scale: the unchanged digit.
    """

    parameter: Parameter
    values: list[float]
    origin: int
    focus: int
    images: Array
    reconstructions: Array | None
    lengths: Array
    """(steps, classes)"""
    pose_change: list[float]
    """‖Φ(Tx) − Φ(x)‖ / ‖Φ(x)‖ of the class capsule"""
    direction_change: list[float]
    """angle in degrees between the class capsule and the unchanged one"""
    pose_path: Array
    """(steps, 2): the class capsule, projected onto its two main directions"""
    pose_shown: float
    control_scores: Array | None
    feature_change: list[float] | None
    feature_path: Array | None
    feature_shown: float | None


class PoolResponse(BaseModel):
    """Hold one map, its pooled result, and a shuffled map with the same pooled result."""

    size: int
    map: Array
    pooled: Array
    winners: Array
    """(rows, columns, 2): row and column of each window's largest value"""
    shuffled: Array
    """The values of each window in another order"""
    shuffled_pooled: Array
    moved: float
    """Mean distance, in pixels, by which the largest values were moved"""


class AgentsResponse(BaseModel):
    """Hold the routing of the agents' estimates."""

    couplings: Array
    """(iterations, agents, houses)"""
    outputs: Array
    """(iterations, houses, 2): v"""
    means: Array
    """(iterations, houses, 2): the agents' estimates, weighted by the couplings"""
    lengths: Array
    """(iterations, houses): ‖v‖"""


class RouteResponse(BaseModel):
    """Hold the routing of given capsules."""

    votes: Array
    """(in_caps, out_caps, out_dim)"""
    logits: Array
    """(iterations, in_caps, out_caps)"""
    couplings: Array
    sums: Array
    """(iterations, out_caps, out_dim): s"""
    outputs: Array
    """(iterations, out_caps, out_dim): v"""
    lengths: Array
    """(iterations, out_caps): ‖v‖"""


class MarginResponse(BaseModel):
    """Hold the margin loss of each class."""

    terms: Array


class AblationRow(BaseModel):
    """Hold the result of one number of iterations; 1 has uniform couplings."""

    iterations: int
    lengths: list[float]
    ranking: list[int]
    entropy: float
    moved: float
    """Mean |change| of the couplings from their uniform start"""


class AblationResponse(BaseModel):
    """Hold the results of several numbers of iterations, for one scene."""

    rows: list[AblationRow]
    dead_children: float
    """Share of primary capsules shorter than 0.01 for this image"""


class TestRow(BaseModel):
    """Hold the test-set result of one number of iterations."""

    iterations: int
    errors: int
    n: int
    error: float
    interval: tuple[float, float]
    changed: int
    """Number of predictions that differ from those with the model's own number of iterations"""
    winner: float
    """Mean length of the longest capsule"""
    runner_up: float
    entropy: float


class TestsetResponse(BaseModel):
    """Hold the results over the test set; `rows` is empty until they are complete."""

    source: str
    done: int
    total: int
    rows: list[TestRow]
    dead_children: float | None
    """Share of primary capsules shorter than 0.01 for every test image"""
    control_error: float | None
    control_interval: tuple[float, float] | None
