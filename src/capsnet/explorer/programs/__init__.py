"""The questions of the explorer's page as tensor programs: tensors in, named tensors out.

Each is written once. The server runs it in PyTorch; `capsnet export --site` exports it to ONNX, and the page runs it in
the browser. Sizes that a request decides (layers, iterations, pooling windows) are tensors too.

    program.py    the base class: inputs, outputs, and how they become a response
    scene.py      layers of pixels and their transforms → the network's input
    geometry.py   projections onto planes, without eigenvectors: ONNX has none
    trace.py      one scene → every value of the network
    units.py      the arithmetic of one unit: a Conv1 pixel, a capsule, a vote, a pooled map
    capsules.py   decode class capsules
    compare.py    sweeps against the max-pooling control, numbers of routing iterations, estate agents
    teaching.py    what the tutorial computes: routing of a small world, the margin loss
    picture.py    a picture file's pixels → the network's input
"""

from __future__ import annotations

from collections.abc import Collection

from jaxtyping import Float
from torch import Tensor

from capsnet.explorer.programs.capsules import Decode, Sheet
from capsnet.explorer.programs.compare import Ablate, Agents, Sweep
from capsnet.explorer.programs.picture import Picture
from capsnet.explorer.programs.program import Program
from capsnet.explorer.programs.teaching import Margin, Route
from capsnet.explorer.programs.trace import Trace
from capsnet.explorer.programs.units import Child, Maps, Pixel, Pool
from capsnet.models.protocols import HasFeatures, Routed, Traceable, decodes

__all__ = ["Program", "programs_of"]


def programs_of(
    model: Routed,
    control: HasFeatures | None,
    channels: list[int],
    planes: Float[Tensor, "types dim 2"],
    absent: Collection[str] = (),
    inverts: bool = True,
) -> dict[str, Program]:
    """Return every program that a model can run, by the name of its endpoint.

    Args:
        model: the network.
        control: the network without capsules, if there is one.
        channels: Conv1 maps of the overview; none for a network without Conv1.
        planes: the plane in which the primary capsules of each type are drawn.
        absent: parts of the page that do not apply to the model.
        inverts: whether a picture of dark ink on light paper is inverted.
    """
    programs: dict[str, Program] = {
        "trace": Trace(model, channels, planes),
        "child": Child(model),
        "agents": Agents(),
        "route": Route(),
        "margin": Margin(),
        "picture": Picture(model.config.image_shape, inverts),
    }
    if isinstance(model, Traceable):
        programs |= {"maps": Maps(model), "pixel": Pixel(model), "pool": Pool(model)}
    if "ablation" not in absent:
        programs["ablation"] = Ablate(model)
    if decodes(model):
        programs |= {"decode": Decode(model), "sheet": Sheet(model)}
    programs["sweep"] = Sweep(model, control)
    return {name: program.eval() for name, program in programs.items()}
