"""Compute the arithmetic of one unit for the current image."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from capsnet._support.errors import CapsnetError
from capsnet.explain import OFFSETS, dimension_effects, dimension_sheet
from capsnet.explorer.schemas import (
    AgentsRequest,
    AgentsResponse,
    Array,
    CapsuleRequest,
    ChildRequest,
    ChildResponse,
    DecodeResponse,
    Meaning,
    MeaningsResponse,
    PixelRequest,
    PixelResponse,
    PoolRequest,
    PoolResponse,
    SheetResponse,
)
from capsnet.explorer.session import Session
from capsnet.explorer.tracing import check_class, scene_image
from capsnet.functional import squash
from capsnet.models.capsnet import lengths_of
from capsnet.routing import trace_routing

#: Examples of a class on which the meanings of its dimensions are measured.
MEANING_EXAMPLES = 4
MEANING_OFFSETS = (-0.25, -0.125, 0.0, 0.125, 0.25)


@torch.no_grad()
def pixel(session: Session, request: PixelRequest) -> PixelResponse:
    """Compute one value of Conv1 from its patch and kernel.

    Raises:
        CapsnetError: the channel or position does not exist.
    """
    conv1 = session.model.primary.conv1
    image = session.model.prepare(scene_image(session, request))
    maps = conv1(image).relu()
    channels, rows, columns = maps.shape[1:]
    if request.channel >= channels or request.row >= rows or request.column >= columns:
        raise CapsnetError(
            f"Conv1 has {channels} maps of {rows}×{columns}; channel, row and column count from 0 and must be inside"
        )
    top, left = request.row * conv1.stride[0], request.column * conv1.stride[1]
    height, width = conv1.kernel_size
    patch = image[0, :, top : top + height, left : left + width]
    kernel = conv1.weight[request.channel]
    assert conv1.bias is not None
    return PixelResponse(
        patch=Array.of(patch),
        kernel=Array.of(kernel),
        products=Array.of(patch * kernel),
        dot=float((patch * kernel).sum()),
        bias=float(conv1.bias[request.channel]),
        value=float(maps[0, request.channel, request.row, request.column]),
        top=top,
        left=left,
    )


@torch.no_grad()
def child(session: Session, request: ChildRequest) -> ChildResponse:
    """Compute one primary capsule and its vote for one class capsule.

    Raises:
        CapsnetError: the capsule or class does not exist.
    """
    model, config = session.model, session.model.config
    parent = check_class(session, request.parent)
    if request.child >= config.in_caps:
        raise CapsnetError(
            f"primary capsule {request.child} does not exist; they are numbered 0 to {config.in_caps - 1}"
        )
    trace = model.trace(scene_image(session, request), request.iterations)
    rows, columns = config.grid
    kind, place = divmod(request.child, rows * columns)
    row, column = divmod(place, columns)
    u = trace.primary[0, request.child]
    before = _before_squash(session, trace.maps, kind, row, column)
    weight = model.class_capsules.weight[request.child, :, parent].T
    vote = weight @ u
    norms = torch.linspace(0, max(4.0, 1.1 * float(before.norm())), 121)
    squashed = squash(norms[:, None])[:, 0]
    step = config.primary_stride * config.stem_stride
    size = config.stem_kernel + config.stem_stride * (config.primary_kernel - 1)
    top, left = row * step, column * step
    return ChildResponse(
        child=request.child,
        type=kind,
        row=row,
        column=column,
        field=(top, left, top + size, left + size),
        before=Array.of(before),
        u=Array.of(u),
        before_length=float(before.norm()),
        length=float(u.norm()),
        weight=Array.of(weight),
        vote=Array.of(vote),
        logits=Array.of(trace.routing.logits[:, 0, request.child]),
        couplings=Array.of(trace.routing.couplings[:, 0, request.child]),
        agreement=(trace.routing.outputs[:, 0, parent] @ vote).tolist(),
        squash_curve=Array.of(torch.stack((norms, squashed), dim=1)),
    )


def _before_squash(session: Session, maps: Tensor, kind: int, row: int, column: int) -> Tensor:
    """Compute s of one primary capsule with the second convolution."""
    primary, config = session.model.primary, session.model.config
    top, left, size = row * config.primary_stride, column * config.primary_stride, config.primary_kernel
    patch = maps[0, :, top : top + size, left : left + size]
    own = slice(kind * config.primary_dim, (kind + 1) * config.primary_dim)
    assert primary.conv2.bias is not None
    return (
        torch.einsum("dchw,chw->d", primary.conv2.weight[own] * primary.scale, patch)
        + primary.conv2.bias[own]
    )


def _capsules(session: Session, request: CapsuleRequest) -> Tensor:
    """Return class capsules, (1, classes, class_dim), in which all but one are zero."""
    config = session.model.config
    number = check_class(session, request.number)
    if session.model.decoder is None:
        raise CapsnetError("this model was trained without a decoder, so it cannot draw")
    if len(request.pose) != config.class_dim:
        raise CapsnetError(
            f"a class capsule of this model has {config.class_dim} numbers, not {len(request.pose)}"
        )
    capsules = torch.zeros(1, config.num_classes, config.class_dim)
    capsules[0, number] = torch.tensor(request.pose)
    return capsules


@torch.no_grad()
def decode(session: Session, request: CapsuleRequest) -> DecodeResponse:
    """Decode a class capsule with the given values."""
    capsules = _capsules(session, request)
    return DecodeResponse(
        image=Array.of(session.model.decode(capsules, request.number)[0]),
        length=float(lengths_of(capsules)[0, request.number]),
    )


def sheet(session: Session, request: CapsuleRequest) -> SheetResponse:
    """Decode a capsule with each dimension changed from −0.25 to 0.25 (figure 4)."""
    images = dimension_sheet(session.model, _capsules(session, request)[0], request.number)
    return SheetResponse(offsets=list(OFFSETS), images=Array.of(images))


@torch.no_grad()
def meanings(session: Session, number: int) -> MeaningsResponse:
    """Measure what each dimension of a class capsule changes, on test digits."""
    check_class(session, number)
    if session.model.decoder is None:
        raise CapsnetError("this model was trained without a decoder, so it cannot draw")
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


@torch.no_grad()
def pool(session: Session, request: PoolRequest) -> PoolResponse:
    """Max-pool one map, and a shuffled map that pools to exactly the same result.

    The values of each window are rotated by about half of their positions, so only positions change.

    Raises:
        CapsnetError: the channel does not exist, or the windows are larger than the map.
    """
    maps = session.model.primary.conv1(session.model.prepare(scene_image(session, request))).relu()
    size = request.size
    if request.channel >= maps.shape[1] or size > min(maps.shape[2:]):
        raise CapsnetError(
            f"Conv1 has {maps.shape[1]} maps of {maps.shape[2]}×{maps.shape[3]}; channel {request.channel} with "
            f"windows of {size}×{size} does not fit"
        )
    rows, columns = maps.shape[2] // size, maps.shape[3] // size
    whole = maps[:, request.channel, : rows * size, : columns * size]
    windows = whole.view(rows, size, columns, size).transpose(1, 2).reshape(rows, columns, size * size)
    turned = windows.roll(size * size // 2 + (size % 2), dims=2)
    shuffled = turned.view(rows, columns, size, size).transpose(1, 2).reshape(1, rows * size, columns * size)
    before, after = windows.argmax(dim=2), turned.argmax(dim=2)
    alive = windows.amax(dim=2) > 0
    distance = torch.hypot((before // size - after // size).float(), (before % size - after % size).float())
    winners = torch.stack((before // size, before % size), dim=2)
    corner = (
        torch.stack(torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij"), dim=2) * size
    )
    return PoolResponse(
        size=size,
        map=Array.of(whole[0]),
        pooled=Array.of(max_pool2d(whole[None], size)[0, 0]),
        winners=Array.of((winners + corner).float()),
        shuffled=Array.of(shuffled[0]),
        shuffled_pooled=Array.of(max_pool2d(shuffled[None], size)[0, 0]),
        moved=float(distance[alive].mean()) if bool(alive.any()) else 0.0,
    )


@torch.no_grad()
def agents(request: AgentsRequest) -> AgentsResponse:
    """Route given votes by agreement.

    Each agent is a child capsule with one dimension, whose value is 1; its weights W are its estimates.

    Raises:
        CapsnetError: an agent has no estimate for one of the houses.
    """
    houses = len(request.estimates[0])
    if any(len(agent) != houses for agent in request.estimates):
        raise CapsnetError("every agent must give an estimate for every house")
    votes = torch.tensor(request.estimates)  # (agents, houses, 2)
    trace = trace_routing(torch.ones(1, len(votes), 1), votes[:, None], request.iterations)
    couplings, outputs = trace.couplings[:, 0], trace.outputs[:, 0]
    weights = couplings / couplings.sum(dim=1, keepdim=True)
    return AgentsResponse(
        couplings=Array.of(couplings),
        outputs=Array.of(outputs),
        means=Array.of(torch.einsum("tij,ijd->tjd", weights, votes)),
        lengths=Array.of(lengths_of(outputs)),
    )
