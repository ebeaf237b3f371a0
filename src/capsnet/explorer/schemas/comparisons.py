"""Capsules beside other ways of doing it."""

from __future__ import annotations

from pydantic import BaseModel

from capsnet.explorer.schemas.base import Array, Parameter


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
