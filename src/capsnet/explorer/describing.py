"""Describe a session's model, and what each dimension of its class capsules changes."""

from __future__ import annotations

import torch

from capsnet.explain import dimension_effects
from capsnet.explorer.answering import check_class, check_decoder
from capsnet.explorer.schemas import Array, Control, Examples, Geometry, Meaning, MeaningsResponse, ModelInfo
from capsnet.explorer.session import CONTROL, Session

#: Examples of a class on which the meanings of its dimensions are measured.
MEANING_EXAMPLES = 4
MEANING_OFFSETS = (-0.25, -0.125, 0.0, 0.125, 0.25)


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
        parameters=model.parameter_count(),
        class_names=list(session.class_names),
        geometry=Geometry(
            image_shape=config.image_shape,
            stem_channels=config.stem_channels,
            stem_kernel=config.stem_kernel,
            stem_stride=config.stem_stride,
            maps=session.maps,
            primary_types=config.primary_types,
            primary_dim=config.primary_dim,
            primary_kernel=config.primary_kernel,
            primary_stride=config.primary_stride,
            grid=config.grid,
            in_caps=config.in_caps,
            classes=config.num_classes,
            class_dim=config.class_dim,
            iterations=config.routing_iterations,
            leaky=config.routing_leaky,
            bias=config.routing_bias,
        ),
        has_decoder=model.decoder is not None,
        test_error=session.result.get("test_error"),
        tested_on=session.result.get("data"),
        trained_on=session.trained_on,
        control=beside,
        overview_channels=session.channels,
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
    check_decoder(session)
    own = [index for index, labels in enumerate(session.labels) if labels == [number]][:MEANING_EXAMPLES]
    if len(own) < 2:
        return MeaningsResponse(examples=len(own), meanings=[None] * session.model.config.class_dim)
    capsules = session.model.class_poses(session.pictures[own].float() / 255)
    found = dimension_effects(
        session.model, capsules, torch.full((len(own),), number), MEANING_OFFSETS
    ).meanings()
    return MeaningsResponse(
        examples=len(own),
        meanings=[None if one is None else Meaning(measure=one[0], correlation=one[1]) for one in found],
    )
