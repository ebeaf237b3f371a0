"""Describe a session's model, and what each dimension of its class capsules changes."""

from __future__ import annotations

import torch

from capsnet.explain import dimension_effects
from capsnet.explain.morphometrics import is_light_on_dark
from capsnet.explain.perturb import MEANING_OFFSETS
from capsnet.explorer.answering import check_class, check_decoder
from capsnet.explorer.schemas import (
    MAX_ITERATIONS,
    Array,
    Control,
    Examples,
    Geometry,
    Meaning,
    MeaningsResponse,
    ModelInfo,
)
from capsnet.explorer.session import CONTROL, PROBES, Session
from capsnet.models.protocols import Traceable, decodes
from capsnet.routing import name_of

#: Examples of a class on which the meanings of its dimensions are measured.
MEANING_EXAMPLES = 4


@torch.no_grad()
def describe(session: Session) -> ModelInfo:
    """Describe the model for the page's start."""
    model, config, control = session.model, session.model.config, session.control
    beside = None
    if control is not None:
        beside = Control(
            name=CONTROL,
            architecture=control.architecture,
            parameters=control.parameter_count(),
            test_error=session.control_result.get("test_error"),
            features=control.features(torch.zeros(1, *config.image_shape)).shape[1],
        )
    return ModelInfo(
        run=session.run,
        architecture=model.architecture,
        routing=name_of(model.class_capsules.routing),
        measure="length" if session.routing.activations is None else "activation",
        absent=session.absent,
        parameters=model.parameter_count(),
        class_names=list(session.class_names),
        geometry=geometry_of(session),
        has_decoder=decodes(model),
        test_error=session.result.get("test_error"),
        tested_on=session.result.get("data"),
        trained_on=session.trained_on,
        control=beside,
        overview_channels=session.channels,
        max_iterations=1 if "ablation" in session.absent else MAX_ITERATIONS,
    )


def geometry_of(session: Session) -> Geometry:
    """Return the network's sizes."""
    config = session.model.config
    names = ("stem_channels", "stem_kernel", "stem_stride", "primary_types", "primary_dim", "primary_kernel")
    own = isinstance(session.model, Traceable)
    first = {name: getattr(config, name) if own else 0 for name in (*names, "primary_stride")}
    return Geometry(
        image_shape=config.image_shape,
        maps=session.maps,
        grid=config.grid if own else (0, 0),
        in_caps=session.in_caps,
        classes=config.num_classes,
        class_dim=session.class_dim,
        iterations=session.iterations,
        leaky=own and config.routing_leaky,
        bias=own and config.routing_bias,
        **first,
    )


def examples(session: Session) -> Examples:
    """Return the example digits."""
    return Examples(
        source=session.dataset.name if session.dataset else "none",
        provenance=session.provenance,
        images=Array.of(session.pictures),
        labels=session.labels,
    )


@torch.no_grad()
def meanings(session: Session, number: int) -> MeaningsResponse:
    """Measure what each dimension of a class capsule changes, on test digits.

    Raises:
        CapsnetError: the model does not have the class, or no decoder.
    """
    check_class(session, number)
    model = check_decoder(session)
    own = [index for index, labels in enumerate(session.labels) if labels == [number]][:MEANING_EXAMPLES]
    if len(own) < 2 or not is_light_on_dark(session.pictures[:PROBES].float() / 255):
        return MeaningsResponse(examples=len(own), meanings=[None] * session.class_dim)
    capsules = model.class_poses(session.pictures[own].float() / 255)
    found = dimension_effects(model, capsules, torch.full((len(own),), number), MEANING_OFFSETS).meanings()
    return MeaningsResponse(
        examples=len(own),
        meanings=[None if one is None else Meaning(measure=one[0], correlation=one[1]) for one in found],
    )
