"""Measure and draw what a trained capsule network has learned.

    perturb.py        change one dimension of a capsule at a time and decode it (figure 4)
    morphometrics.py  thickness, slant, width, … of strokes, to name what a dimension does
    segment.py        separate overlapping digits: each class capsule draws its own digit
    equivariance.py   test whether a linear map of the pose follows a rotation of the image
    routing.py        entropy of the couplings, dead capsules, changes of the logits

`CapsNet.trace` returns the values that these functions read.
"""

from capsnet.explain.equivariance import (
    TRANSFORMS,
    Equivariance,
    class_pose,
    fit_equivariance,
    layer_output,
    rotation,
    scaling,
    thickness,
    translation,
)
from capsnet.explain.morphometrics import MEASURES, correlations, measure
from capsnet.explain.perturb import OFFSETS, DimensionEffects, dimension_effects, dimension_sheet
from capsnet.explain.routing import coupling_entropy, dead_share, logit_changes, routing_summary
from capsnet.explain.segment import Segmentation, segment, segmentation_quality

__all__ = [
    "MEASURES",
    "OFFSETS",
    "TRANSFORMS",
    "DimensionEffects",
    "Equivariance",
    "Segmentation",
    "class_pose",
    "correlations",
    "coupling_entropy",
    "dead_share",
    "dimension_effects",
    "dimension_sheet",
    "fit_equivariance",
    "layer_output",
    "logit_changes",
    "measure",
    "rotation",
    "routing_summary",
    "scaling",
    "segment",
    "segmentation_quality",
    "thickness",
    "translation",
]
