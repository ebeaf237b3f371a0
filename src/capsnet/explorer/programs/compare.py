"""Compare capsules with the control, numbers of routing iterations, and estate agents."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from capsnet.explain import coupling_entropy
from capsnet.explorer.programs.geometry import path_of
from capsnet.explorer.programs.program import Outputs, Program
from capsnet.explorer.programs.scene import Pixels, Transforms, compose, placed
from capsnet.explorer.programs.trace import Number
from capsnet.explorer.schemas import (
    MAX_ITERATIONS,
    PARAMETERS,
    AblationResponse,
    AgentsResponse,
    Parameter,
    SweepResponse,
)
from capsnet.models.capsnet import lengths_of
from capsnet.models.protocols import HasFeatures, HasPoses, Routed, decodes
from capsnet.routing import trace_routing

#: Iterations that the ablation compares; 1 has uniform couplings.
ABLATION = (1, 2, 3, 5, MAX_ITERATIONS)
#: A capsule shorter than this is dead (the threshold of `capsnet.explain.dead_share`).
DEAD = 0.01

#: Offsets from the digit's transform, factors of a scale: 17 steps; the middle one is no change.
SWEEPS: dict[Parameter, tuple[float, ...]] = {
    "rotation": tuple(step * 7.5 for step in range(-8, 9)),
    "shift_x": tuple(step * 0.75 for step in range(-8, 9)),
    "shift_y": tuple(step * 0.75 for step in range(-8, 9)),
    "scale": tuple(1 + step * 0.05 for step in range(-8, 9)),
    "shear": tuple(step * 0.1 for step in range(-8, 9)),
}
STEPS = 17
ORIGIN = STEPS // 2
#: Columns of a transform that a parameter changes.
COLUMNS: dict[Parameter, tuple[int, ...]] = {
    "rotation": (0,),
    "shear": (1,),
    "scale": (2, 3),
    "shift_x": (4,),
    "shift_y": (5,),
}


def changes() -> tuple[Float[Tensor, "parameters steps 6"], Float[Tensor, "parameters steps 6"]]:
    """Return what each parameter's steps add to a transform, and what they multiply it by."""
    added, factor = torch.zeros(len(PARAMETERS), STEPS, 6), torch.ones(len(PARAMETERS), STEPS, 6)
    for number, parameter in enumerate(PARAMETERS):
        values = torch.tensor(SWEEPS[parameter])[:, None]
        (factor if parameter == "scale" else added)[number][:, COLUMNS[parameter]] = values
    return added, factor


class Sweep(Program):
    """Move the first layer step by step; compare pose and control features.

    Args:
        model: the network.
        control: the network without capsules, if there is one.
    """

    answer = SweepResponse
    weights = "control"  # the page loads this file for the comparison only
    added: Tensor
    factor: Tensor
    values: Tensor

    def __init__(self, model: Routed, control: HasFeatures | None) -> None:
        super().__init__()
        self.model, self.control = model, control
        added, factor = changes()
        self.register_buffer("added", added, persistent=False)
        self.register_buffer("factor", factor, persistent=False)
        self.register_buffer("values", torch.tensor([SWEEPS[name] for name in PARAMETERS]), persistent=False)

    def forward(self, pixels: Pixels, transforms: Transforms, parameter: Number, focus: Number) -> Outputs:
        """Sweep a parameter; `focus` is the class whose pose is shown, −1 for the unchanged image's answer."""
        model, shape = self.model, self.model.config.image_shape
        added, factor = (table.index_select(0, parameter[None])[0] for table in (self.added, self.factor))
        moved = placed(pixels[:1].expand(STEPS, -1), transforms[:1] * factor + added, shape)
        beside = placed(pixels, transforms, shape) * (torch.arange(pixels.shape[0]) > 0)[:, None, None, None]
        images = (moved + compose(beside)).clamp(max=1)
        if isinstance(model, HasPoses):
            capsules = model.class_poses(images)
            lengths = lengths_of(capsules)
        else:
            routing = model.class_routing(images)
            capsules, lengths = routing.outputs[-1].flatten(2), routing.scores[-1]
        focus = torch.where(focus < 0, lengths[ORIGIN].argmax(), focus)
        poses = capsules.index_select(1, focus[None])[:, 0]
        found = {
            "values": self.values.index_select(0, parameter[None])[0],
            "origin": torch.tensor(ORIGIN),
            "focus": focus,
            "images": images,
            "lengths": lengths,
            "pose_change": relative_change(poses),
            "direction_change": direction_change(poses),
        }
        found["pose_path"], found["pose_shown"] = path_of(poses, ORIGIN)
        if decodes(model):
            found["reconstructions"] = model.decode(capsules, focus.expand(STEPS))
        if self.control is not None:
            features = self.control.features(images)
            found["control_scores"] = self.control.scores(images)
            found["feature_change"] = relative_change(features)
            found["feature_path"], found["feature_shown"] = path_of(features, ORIGIN)
        return found


def relative_change(vectors: Float[Tensor, "steps dim"]) -> Float[Tensor, " steps"]:
    """Return ‖Φ(Tx) − Φ(x)‖ / ‖Φ(x)‖."""
    origin = vectors[ORIGIN]
    change: Tensor = (vectors - origin).norm(dim=1) / origin.norm().clamp(min=1e-12)
    return change


def direction_change(vectors: Float[Tensor, "steps dim"]) -> Float[Tensor, " steps"]:
    """Return the angles, in degrees, between the vectors and the unchanged one.

    As 2 atan(‖a − b‖ / ‖a + b‖) of the unit vectors: the arc cosine of nearly 1 would lose half of the digits.
    """
    unit = normalize(vectors, dim=1)
    apart, sum_of_both = unit - unit[ORIGIN], unit + unit[ORIGIN]
    half = torch.atan(apart.norm(dim=1) / sum_of_both.norm(dim=1).clamp(min=1e-12))
    return torch.rad2deg(2 * half)


class Ablate(Program):
    """Classify one scene with each number of iterations in `ABLATION`."""

    answer = AblationResponse

    def __init__(self, model: Routed) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Pixels, transforms: Transforms) -> Outputs:
        """Return a row for each number of iterations."""
        image = compose(placed(pixels, transforms, self.model.config.image_shape))
        # Iteration t does not depend on later iterations, so one trace holds the results of all of them.
        routing = self.model.class_routing(image, max(ABLATION))
        rows = torch.tensor(ABLATION)
        lengths = routing.scores[:, 0].index_select(0, rows - 1)
        moved = (routing.couplings[:, 0] - routing.couplings[0, 0]).abs().mean(dim=(1, 2))
        return {
            "rows.iterations": rows,
            "rows.lengths": lengths,
            "rows.ranking": lengths.argsort(dim=1, descending=True),
            "rows.entropy": coupling_entropy(routing)[:, 0].index_select(0, rows - 1),
            "rows.moved": moved.index_select(0, rows - 1),
            "dead_children": (routing.presence < DEAD).float().mean(),
        }


class Agents(Program):
    """Route votes that are given by hand.

    Each agent is a child capsule with one dimension, whose value is 1; its weights W are its estimates.
    """

    answer = AgentsResponse

    def forward(self, estimates: Float[Tensor, "agents houses 2"], iterations: Number) -> Outputs:
        """Route the estimates of each agent for each house."""
        whole = trace_routing(
            torch.ones(1, estimates.shape[0], 1),
            estimates[:, None],
            self.steps(iterations),
            backend="reference",
        )
        trace = self.kept(whole, iterations)
        couplings, outputs = trace.couplings[:, 0], trace.outputs[:, 0]
        weights = couplings / couplings.sum(dim=1, keepdim=True)
        return {
            "couplings": couplings,
            "outputs": outputs,
            "means": torch.einsum("tij,ijd->tjd", weights, estimates),
            "lengths": lengths_of(outputs),
        }
