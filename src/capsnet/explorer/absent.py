"""Say which parts of the page do not apply to a model, each in one sentence."""

from __future__ import annotations

from capsnet.models.protocols import Decodes, Routed, Traceable
from capsnet.routing import name_of

#: Endpoints of a part that the page does not show.
ENDPOINTS = {"maps": "conv1", "pixel": "conv1", "pool": "conv1", "ablation": "ablation"}


def absent_parts(model: Routed, one_pass: bool) -> dict[str, str]:
    """Return the reason for each part that does not apply, by the name of the part.

    The parts are the page's stages, and "places" and "tour".
    """
    name, found = model.architecture, {}
    if not isinstance(model, Traceable):
        found["conv1"] = (
            f"{name} has several layers before its capsules; this page explains a single convolution, as CapsNet has."
        )
        found["primary"] = (
            f"{name} does not make its primary capsules by one convolution and squash, which this page explains. "
            "The children of its class capsules are under “Votes & routing”."
        )
        found["places"] = (
            f"In {name} the children of the class capsules see large parts of the image, so no map of places is drawn."
        )
    if not isinstance(model, Decodes):
        found["reconstruction"] = f"{name} has no decoder, so it cannot draw."
    if one_pass:
        found["ablation"] = f"The routing of this {name} is one pass, so it has no iterations to compare."
    if "conv1" in found or name_of(model.class_capsules.routing) != "dynamic":
        found["tour"] = (
            "The tour explains CapsNet with dynamic routing; `capsnet explore` without a run shows it."
        )
    return found
