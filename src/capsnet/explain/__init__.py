"""What a trained capsule network has learned, as numbers and pictures.

    perturb.py        turn one of a capsule's numbers at a time, and look (figure 4)
    morphometrics.py  thickness, slant, width, … of drawn things, to say what such a number means
    segment.py        overlapping digits told apart: each capsule draws its own
    equivariance.py   does a linear map of the pose do what rotating the image does?
    routing.py        how decided, how alive, how settled the routing is

`CapsNet.trace` gives what they look at.
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
from capsnet.explain.routing import coupling_entropy, dead_share, logit_changes
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
    "scaling",
    "segment",
    "segmentation_quality",
    "thickness",
    "translation",
]
