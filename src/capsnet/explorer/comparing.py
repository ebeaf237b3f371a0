"""Compare capsules with the control, and numbers of routing iterations."""

from __future__ import annotations

import torch
from torch import Tensor

from capsnet.explain import coupling_entropy
from capsnet.explorer.geometry import path_of
from capsnet.explorer.scene import compose, placed
from capsnet.explorer.schemas import (
    MAX_ITERATIONS,
    AblationResponse,
    AblationRow,
    Array,
    Layer,
    Parameter,
    Scene,
    SweepRequest,
    SweepResponse,
)
from capsnet.explorer.session import Session
from capsnet.explorer.tracing import check_class, scene_image
from capsnet.models.capsnet import lengths_of

#: Iterations that the ablation compares; 1 has uniform couplings.
ABLATION = (1, 2, 3, 5, MAX_ITERATIONS)
#: A capsule shorter than this is dead (the threshold of `capsnet.explain.dead_share`).
DEAD = 0.01

#: Offsets from the digit's transform: 17 steps; the middle one is no change.
SWEEPS: dict[Parameter, tuple[float, ...]] = {
    "rotation": tuple(step * 7.5 for step in range(-8, 9)),
    "shift_x": tuple(step * 0.75 for step in range(-8, 9)),
    "shift_y": tuple(step * 0.75 for step in range(-8, 9)),
    "scale": tuple(1 + step * 0.05 for step in range(-8, 9)),
    "shear": tuple(step * 0.1 for step in range(-8, 9)),
}


def moved(layer: Layer, parameter: Parameter, amount: float) -> Layer:
    """Return a layer with one parameter changed; a scale is multiplied."""
    transform = layer.transform
    if parameter == "scale":
        changes = {"scale_x": transform.scale_x * amount, "scale_y": transform.scale_y * amount}
    else:
        changes = {parameter: getattr(transform, parameter) + amount}
    return layer.model_copy(update={"transform": transform.model_copy(update=changes)})


@torch.no_grad()
def sweep(session: Session, request: SweepRequest) -> SweepResponse:
    """Move the first layer step by step; compare pose and control features.

    Raises:
        CapsnetError: a layer has another size, or the model does not have the class.
    """
    model, shape = session.model, session.model.config.image_shape
    values = SWEEPS[request.parameter]
    first, *others = request.layers
    images = torch.cat(
        [compose(placed([moved(first, request.parameter, v), *others], shape)) for v in values]
    )
    origin = len(values) // 2
    capsules = model.class_poses(images)
    lengths = lengths_of(capsules)
    focus = int(lengths[origin].argmax()) if request.focus is None else check_class(session, request.focus)
    poses = capsules[:, focus]
    pose_path, pose_shown = path_of(poses, origin)
    cosine = torch.nn.functional.cosine_similarity(poses, poses[origin : origin + 1], dim=1).clamp(-1, 1)

    scores = features = None
    if session.control is not None:
        scores = session.control.scores(images)
        features = session.control.features(images)
    feature_path, feature_shown = (None, None) if features is None else path_of(features, origin)
    return SweepResponse(
        parameter=request.parameter,
        values=list(values),
        origin=origin,
        focus=focus,
        images=Array.of(images),
        reconstructions=None if model.decoder is None else Array.of(model.decode(capsules, focus)),
        lengths=Array.of(lengths),
        pose_change=_relative_change(poses, origin),
        direction_change=torch.rad2deg(cosine.acos()).tolist(),
        pose_path=Array.of(pose_path),
        pose_shown=pose_shown,
        control_scores=None if scores is None else Array.of(scores),
        feature_change=None if features is None else _relative_change(features, origin),
        feature_path=None if feature_path is None else Array.of(feature_path),
        feature_shown=feature_shown,
    )


def _relative_change(vectors: Tensor, origin: int) -> list[float]:
    away = (vectors - vectors[origin]).norm(dim=1)
    change: list[float] = (away / vectors[origin].norm().clamp(min=1e-12)).tolist()
    return change


@torch.no_grad()
def ablation(session: Session, scene: Scene) -> AblationResponse:
    """Classify one scene with each number of iterations in `ABLATION`."""
    image = session.model.prepare(scene_image(session, scene))
    primary = session.model.primary(image)
    # Iteration t does not depend on later iterations, so one trace holds the results of all of them.
    routing = session.model.class_capsules.trace(primary, max(ABLATION))
    entropy = coupling_entropy(routing)[:, 0].tolist()
    rows = []
    for iterations in ABLATION:
        lengths = lengths_of(routing.outputs[iterations - 1, 0])
        rows.append(
            AblationRow(
                iterations=iterations,
                lengths=lengths.tolist(),
                ranking=lengths.argsort(descending=True).tolist(),
                entropy=entropy[iterations - 1],
                moved=float((routing.couplings[iterations - 1] - routing.couplings[0]).abs().mean()),
            )
        )
    return AblationResponse(rows=rows, dead_children=float((lengths_of(primary) < DEAD).float().mean()))
