"""Trace one scene through the network and pack every intermediate value."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from capsnet._support.errors import CapsnetError
from capsnet.explain import coupling_entropy
from capsnet.explorer.geometry import flatten_arrows, vote_plane
from capsnet.explorer.scene import compose, outlines, placed
from capsnet.explorer.schemas import (
    Array,
    Cloud,
    Control,
    Geometry,
    MapsResponse,
    ModelInfo,
    Scene,
    TraceRequest,
    TraceResponse,
)
from capsnet.explorer.session import CONTROL, Session
from capsnet.models.capsnet import lengths_of


def check_class(session: Session, number: int) -> int:
    """Raise CapsnetError if the model does not have the class."""
    if number >= session.model.config.num_classes:
        raise CapsnetError(
            f"class {number} does not exist; this model's classes are 0 to {session.model.config.num_classes - 1}"
        )
    return number


def scene_image(session: Session, scene: Scene) -> Tensor:
    """Return the composed image in [0, 1], (1, channels, height, width)."""
    return compose(placed(scene.layers, session.model.config.image_shape))


@torch.no_grad()
def trace_scene(session: Session, request: TraceRequest) -> TraceResponse:
    """Run the network once and pack all values that the page shows.

    Raises:
        CapsnetError: a layer has another size, or the model does not have the class.
    """
    started = time.perf_counter()
    model, config = session.model, session.model.config
    layers = placed(request.layers, config.image_shape)
    image = compose(layers)
    focus = None if request.focus is None else check_class(session, request.focus)
    trace = model.trace(image, request.iterations)
    routing = trace.routing
    couplings, outputs = routing.couplings[:, 0], routing.outputs[:, 0]
    primary, lengths = trace.primary[0], trace.lengths[0]
    ranking = lengths.argsort(descending=True).tolist()
    focus = ranking[0] if focus is None else focus

    votes = torch.einsum("ic,icjd->ijd", primary, model.class_capsules.weight)
    sums = torch.einsum("tij,ijd->tjd", couplings, votes)
    if model.class_capsules.bias is not None:
        sums = sums + model.class_capsules.bias
    directions = outputs / lengths_of(outputs)[..., None].clamp(min=1e-12)
    support = couplings * torch.einsum("ijd,tjd->tij", votes, directions)
    by_place = (config.primary_types, *config.grid)
    plane = vote_plane(votes[:, focus], couplings[:, :, focus], outputs[:, focus])

    reconstructions = errors = None
    if model.decoder is not None:
        everyone = torch.arange(config.num_classes)
        reconstructions = model.decode(trace.capsules.expand(config.num_classes, -1, -1), everyone)
        errors = (reconstructions - image).square().sum(dim=(1, 2, 3)).tolist()

    return TraceResponse(
        image=Array.of(image[0]),
        layers=Array.of(layers),
        outlines=Array.of(outlines(request.layers, config.image_shape)),
        maps=Array.of(trace.maps[0, session.channels]),
        primary=Array.of(primary),
        primary_lengths=Array.of(lengths_of(primary)),
        arrows=Array.of(
            flatten_arrows(primary.unflatten(0, (config.primary_types, -1)), session.planes).flatten(0, 1)  # type: ignore[no-untyped-call]
        ),
        couplings=Array.of(couplings),
        support=Array.of(support.unflatten(1, by_place).sum(dim=1)),  # type: ignore[no-untyped-call]
        sums=Array.of(lengths_of(sums)),
        iteration_lengths=Array.of(lengths_of(outputs)),
        entropy=coupling_entropy(routing)[:, 0].tolist(),
        lengths=Array.of(lengths),
        capsules=Array.of(trace.capsules[0]),
        ranking=ranking,
        speakers=speakers(ranking, reconstructions, layers),
        reconstructions=None if reconstructions is None else Array.of(reconstructions),
        reconstruction_errors=errors,
        cloud=Cloud(
            focus=focus,
            points=Array.of(plane.points),
            mean=Array.of(plane.mean),
            spread=Array.of(plane.spread),
            outputs=Array.of(plane.outputs),
            rms=plane.rms.tolist(),
            shown=plane.shown,
        ),
        control=None if session.control is None else Array.of(session.control.scores(image)[0]),
        seconds=time.perf_counter() - started,
    )


def speakers(ranking: list[int], reconstructions: Tensor | None, layers: Tensor) -> list[int]:
    """Assign the longest capsules to the layers by reconstruction error."""
    longest = ranking[: len(layers)]
    if len(longest) < 2 or reconstructions is None:
        return longest
    error = (reconstructions[longest, None] - layers).square().sum(dim=(2, 3, 4))  # (class, layer)
    crossed = error[0, 1] + error[1, 0] < error[0, 0] + error[1, 1]
    return longest[::-1] if bool(crossed) else longest


@torch.no_grad()
def all_maps(session: Session, scene: Scene) -> MapsResponse:
    """Return all Conv1 maps of a scene and their kernels."""
    conv1 = session.model.primary.conv1
    maps = conv1(session.model.prepare(scene_image(session, scene))).relu()
    return MapsResponse(maps=Array.of(maps[0]), kernels=Array.of(conv1.weight))


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
    height, width = ((size - config.stem_kernel) // config.stem_stride + 1 for size in config.image_shape[1:])
    return ModelInfo(
        run=session.run,
        parameters=model.parameter_count(),
        class_names=list(session.class_names),
        geometry=Geometry(
            image_shape=config.image_shape,
            stem_channels=config.stem_channels,
            stem_kernel=config.stem_kernel,
            stem_stride=config.stem_stride,
            maps=(height, width),
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
