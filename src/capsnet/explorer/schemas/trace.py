"""Define the response with every intermediate value of the network."""

from __future__ import annotations

from pydantic import BaseModel

from capsnet.explorer.schemas.base import Array


class Cloud(BaseModel):
    """Hold the votes for one class, projected onto a plane.

    The first coordinate is along the class's final vector v: multiplied by ‖v‖ it is the agreement û·v. The
    second is the main direction of the rest.
    """

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
    """Hold every intermediate value of the network for one scene."""

    image: Array
    layers: Array
    """(layers, channels, height, width): each layer after its transform, before they are added"""
    outlines: Array
    """(layers, 4, 2): corners of each layer's frame, pixels (across, down), clockwise from the top left"""
    maps: Array | None
    """(overview channels, rows, columns) Conv1 after its ReLU; null, as the next two, unless the model is a CapsNet"""
    primary: Array | None
    """(in_caps, primary_dim)"""
    arrows: Array | None
    """(in_caps, 2): each primary capsule, projected onto its type's main plane, with its length kept"""
    presence: Array
    """(in_caps,): length, at most 1, or activation of each child of the class capsules"""
    couplings: Array
    """(iterations, in_caps, classes)"""
    support: Array | None
    """(iterations, rows, columns, classes): Σ over types of c û·v/‖v‖. With dynamic routing it sums to ‖s‖ over all
    places."""
    sums: Array | None
    """(iterations, classes): ‖s‖ = ‖Σ c û‖"""
    iteration_lengths: Array
    """(iterations, classes): ‖v‖, or the activation of each class capsule"""
    entropy: list[float]
    """Entropy of the couplings, per iteration; 1 for uniform couplings."""
    lengths: Array
    """(classes,): ‖v‖ or activation in the last iteration"""
    capsules: Array
    """(classes, class_dim): vectors, or the rows of pose matrices"""
    ranking: list[int]
    """Classes, the longest first."""
    speakers: list[int]
    """The longest capsules, one for each layer: the one that draws that layer best."""
    reconstructions: Array | None
    """(classes, channels, height, width): each class capsule decoded alone"""
    reconstruction_errors: list[float] | None
    """Sum of squared differences from the input, per class."""
    cloud: Cloud
