"""One scene on its way through the network."""

from __future__ import annotations

from pydantic import BaseModel

from capsnet.explorer.schemas.base import Array


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
