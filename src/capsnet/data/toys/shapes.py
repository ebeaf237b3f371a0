"""Build toys of about a dozen solids each, in smallNORB's five categories.

Every instance has its own proportions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from capsnet.data.fixed_random import frozen_uniforms

#: The table of `frozen_uniforms` for the proportions, and the count of numbers per toy.
STREAM = 5
NUMBERS = 12


class Solid(NamedTuple):
    """A box with round edges, turned and stretched.

    A box without extent is a ball, with one extent a capsule, with two a plate.
    """

    centre: tuple[float, float, float]
    #: Half of the box's extent along each axis, before rounding.
    half: tuple[float, float, float] = (0.0, 0.0, 0.0)
    #: Radius of the rounding, added outside the box.
    radius: float = 0.1
    #: Degrees about the vertical axis (applied last) and about the y axis (first; positive lowers the front).
    turn: float = 0.0
    pitch: float = 0.0
    #: Factors for box and rounding along the solid's own axes.
    stretch: tuple[float, float, float] = (1.0, 1.0, 1.0)


@dataclass(frozen=True, eq=False)
class Shape:
    """Solids as tensors, centred and scaled to fit the ball of radius 1."""

    centres: Float[Tensor, "solids 3"]
    #: Rows are the solid's own axes.
    axes: Float[Tensor, "solids 3 3"]
    halves: Float[Tensor, "solids 3"]
    radii: Float[Tensor, " solids"]
    stretches: Float[Tensor, "solids 3"]

    def distance(self, points: Float[Tensor, "points 3"]) -> Float[Tensor, " points"]:
        """Return a lower bound of the distance to the surface.

        It is exact without stretch, 0 on the surface, and negative inside.
        """
        solids = len(self.centres)
        turned = points @ self.axes.reshape(-1, 3).T - (self.axes @ self.centres[:, :, None]).reshape(-1)
        folded = (turned.view(-1, solids, 3) / self.stretches).abs() - self.halves
        outside = torch.linalg.vector_norm(folded.clamp(min=0), dim=2) - self.radii
        nearest: Tensor = (outside * self.stretches.amin(dim=1)).amin(dim=1)
        return nearest


def toy(category: int, instance: int) -> Shape:
    """Build the shape of a toy.

    Args:
        category: 0 to 4, in the order of `capsnet.data.viewpoints.CATEGORIES`.
        instance: 0 or more.
    """
    # The first 50 toys came before the others: their rows of the table stay.
    row = 10 * category + instance if instance < 10 else 5 * instance + category
    numbers = frozen_uniforms(STREAM, row + 1, NUMBERS)[row].tolist()
    return assemble(BUILDERS[category](numbers))


def assemble(solids: Sequence[Solid]) -> Shape:
    """Convert solids to tensors, centred and scaled to the ball of radius 1."""
    centres = torch.tensor([solid.centre for solid in solids])
    halves = torch.tensor([solid.half for solid in solids])
    radii = torch.tensor([solid.radius for solid in solids])
    stretches = torch.tensor([solid.stretch for solid in solids])
    axes = torch.stack([_axes(solid.turn, solid.pitch) for solid in solids])
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 3)
    corners = signs * ((halves + radii[:, None]) * stretches)[:, None]
    corners = (corners @ axes + centres[:, None]).flatten(0, 1)
    middle = (corners.amin(dim=0) + corners.amax(dim=0)) / 2
    scale = 1 / torch.linalg.vector_norm(corners - middle, dim=1).max()
    return Shape((centres - middle) * scale, axes, halves * scale, radii * scale, stretches)


def _axes(turn: float, pitch: float) -> Float[Tensor, "3 3"]:
    a, b = math.radians(turn), math.radians(pitch)
    about_z = torch.tensor([[math.cos(a), math.sin(a), 0], [-math.sin(a), math.cos(a), 0], [0, 0, 1]])
    about_y = torch.tensor([[math.cos(b), 0, -math.sin(b)], [0, 1, 0], [math.sin(b), 0, math.cos(b)]])
    return about_y @ about_z


def _animal(u: Sequence[float]) -> list[Solid]:
    """Build an animal with four legs, facing x: from sheep to giraffe."""
    length, girth, leg = 0.45 + 0.35 * u[0], 0.2 + 0.16 * u[1], 0.25 + 0.4 * u[2]
    thin, neck, lean = 0.05 + 0.05 * u[3], 0.1 + 0.45 * u[4], 20 + 60 * u[5]
    head, snout, tail = 0.12 + 0.08 * u[6], 0.6 * u[7], 0.1 + 0.25 * u[8]
    high = leg + girth
    slope = math.radians(lean)
    top = (length + neck * math.cos(slope), 0.0, high + neck * math.sin(slope) + 0.4 * girth)
    solids = [Solid((0, 0, high), (length, 0, 0), girth, stretch=(1, 0.8 + 0.3 * u[9], 1))]
    for x in (-1, 1):
        for y in (-1, 1):
            solids.append(Solid((x * length * 0.9, y * girth * 0.6, leg / 2), (0, 0, leg / 2), thin))
    middle = ((length + top[0]) / 2, 0.0, (high + 0.4 * girth + top[2]) / 2)
    solids.append(Solid(middle, (neck / 2, 0, 0), 0.09 + 0.05 * u[10], pitch=-lean))
    solids.append(Solid(top, (head * snout, 0, 0), head, pitch=15, stretch=(1.2, 0.8, 0.9)))
    for y in (-1, 1):
        ear = (top[0] - 0.05, y * head * 0.7, top[2] + head)
        solids.append(Solid(ear, (0, 0, 0.1 * u[11]), 0.05))
    end = (-length - girth - tail / 2, 0.0, high + 0.1 - tail * 0.3)
    solids.append(Solid(end, (tail / 2, 0, 0), 0.04, pitch=-40))
    return solids


def _human(u: Sequence[float]) -> list[Solid]:
    """Build a human facing x, standing or walking, with arms down or raised."""
    leg, hip, torso = 0.55 + 0.2 * u[0], 0.1 + 0.06 * u[1], 0.3 + 0.12 * u[2]
    wide, thick, head = 0.16 + 0.1 * u[3], 0.07 + 0.05 * u[4], 0.13 + 0.05 * u[5]
    stride, raised, arm = 30 * u[6], 80 * u[7], 0.5 + 0.15 * u[8]
    solids = [Solid((0, 0, leg + torso), (0.02, wide, torso - 0.08), 0.08 + thick / 2)]
    for y, forward in ((-1, 1), (1, -1)):
        swing = math.radians(forward * stride)
        foot = (math.sin(swing) * leg / 2, y * hip, leg - math.cos(swing) * leg / 2)
        solids.append(Solid(foot, (0, 0, leg / 2), thick, pitch=-forward * stride))
        toe = (math.sin(swing) * leg + 0.06, y * hip, leg - math.cos(swing) * leg)
        solids.append(Solid(toe, (0.08, 0, 0), thick * 0.8))
        angle = raised * (1 if forward > 0 else u[9])
        lift = math.radians(angle)
        shoulder = leg + 2 * torso - 0.08
        hand = (math.sin(lift) * arm / 2, y * (wide + 0.13), shoulder - math.cos(lift) * arm / 2)
        solids.append(Solid(hand, (0, 0, arm / 2), thick * 0.75, pitch=-angle))
    crown = leg + 2 * torso + head + 0.05
    solids.append(Solid((0.02, 0, crown), (0, 0, 0.03), head))
    hat = 0.18 * u[10]
    solids.append(Solid((0, 0, crown + head * 0.7), (hat, hat, 0), 0.05 + 0.04 * u[11]))
    return solids


def _airplane(u: Sequence[float]) -> list[Solid]:
    """Build an airplane along x: from glider to airliner."""
    length, body, span = 0.7 + 0.3 * u[0], 0.08 + 0.08 * u[1], 0.45 + 0.5 * u[2]
    sweep, chord, place = 40 * u[3], 0.1 + 0.12 * u[4], 0.3 * u[5] - 0.1
    tail, fin, high = 0.18 + 0.2 * u[6], 0.12 + 0.18 * u[7], body * (1.6 * u[8] - 0.8)
    solids = [Solid((0, 0, 0), (length, 0, 0), body)]
    back = math.tan(math.radians(sweep))
    for y in (-1, 1):
        wing = (place - back * span / 2, y * (span / 2 + body / 2), high)
        solids.append(Solid(wing, (chord, span / 2, 0), 0.03, turn=y * sweep))
        plane = (-length * 0.95, y * tail / 2, 0.4 * body + fin * (1 if u[9] > 0.6 else 0))
        solids.append(Solid(plane, (chord * 0.5, tail / 2, 0), 0.025, turn=y * sweep))
        if u[10] > 0.3:
            engine = (place - back * span * 0.4 + chord, y * (span * 0.4 + body), high - 0.09)
            solids.append(Solid(engine, (0.1, 0, 0), 0.05 + 0.03 * u[11]))
    solids.append(Solid((-length * 0.95, 0, body * 0.5 + fin / 2), (chord * 0.5, 0, fin / 2), 0.025, pitch=0))
    solids.append(Solid((length * 0.6, 0, body * 0.8), (body, 0, 0), body * 0.55))
    return solids


def _wheels(xs: Sequence[float], side: float, radius: float) -> list[Solid]:
    return [Solid((x, y * side, radius), radius=radius, stretch=(1, 0.4, 1)) for x in xs for y in (-1, 1)]


def _truck(u: Sequence[float]) -> list[Solid]:
    """Build a truck: a cab and a load (open, box or tank) on six wheels."""
    length, wide, load = 0.5 + 0.35 * u[0], 0.22 + 0.08 * u[1], 0.12 + 0.22 * u[2]
    cab, tall, wheel = 0.12 + 0.1 * u[3], 0.16 + 0.14 * u[4], 0.1 + 0.06 * u[5]
    floor = 2 * wheel * 0.8
    front = length + cab + 0.08
    solids = [Solid((cab, 0, floor), (length + cab, wide * 0.7, 0.02), 0.03)]
    if u[6] > 0.35:
        solids.append(Solid((0, 0, floor + load + 0.05), (length - 0.05, wide - 0.03, load), 0.03))
    elif u[6] > 0.15:
        solids.append(Solid((0, 0, floor + wide), (length - wide, 0, 0), wide))
    else:
        for y in (-1, 1):
            solids.append(Solid((0, y * wide, floor + 0.1), (length - 0.03, 0, 0.08), 0.025))
    solids.append(Solid((front, 0, floor + tall), (cab - 0.03, wide - 0.04, tall - 0.03), 0.04))
    if u[7] > 0.5:
        nose = (front + cab + 0.1 * u[8], 0.0, floor + tall * 0.5)
        solids.append(Solid(nose, (0.08 + 0.08 * u[8], wide - 0.07, tall * 0.4), 0.04))
    exhaust = 0.2 * u[9]
    solids.append(Solid((front - cab, wide * 0.8, floor + tall + exhaust), (0, 0, tall), 0.025))
    return solids + _wheels((-length * 0.8, -length * (0.8 - 0.4 * u[10]), front * 0.9), wide * 0.9, wheel)


def _car(u: Sequence[float]) -> list[Solid]:
    """Build a car: a low body and a cabin on four wheels, from coupé to van."""
    length, wide, low = 0.5 + 0.25 * u[0], 0.2 + 0.08 * u[1], 0.07 + 0.06 * u[2]
    wheel, roof, cabin = 0.09 + 0.05 * u[3], 0.08 + 0.12 * u[4], 0.18 + 0.25 * u[5]
    place, curve = 0.25 * (u[6] - 0.6), 0.04 + 0.06 * u[7]
    bottom = wheel * 1.1
    body = bottom + low
    solids = [
        Solid((0, 0, body), (length - curve, wide - curve / 2, max(low - curve / 2, 0.01)), curve),
        Solid((place, 0, body + low + roof), (cabin, wide * 0.7 - curve / 2, max(roof - curve, 0.01)), curve),
    ]
    slant = 20 + 40 * u[8]
    for end in (-1, 1):
        screen = (place + end * (cabin + 0.02), 0.0, body + low + roof * 0.6)
        solids.append(Solid(screen, (roof * 0.8, wide * 0.65, 0.01), 0.03, pitch=end * slant))
    if u[9] > 0.6:
        solids.append(Solid((-length * 0.95, 0, body + low + 0.1), (0.05, wide * 0.8, 0), 0.02))
    bumper = 0.02 + 0.03 * u[10]
    for end in (-1, 1):
        solids.append(Solid((end * length, 0, bottom + 0.03), (0, wide * 0.8, 0), bumper))
    return solids + _wheels((-length * (0.6 + 0.1 * u[11]), length * 0.65), wide * 0.95, wheel)


BUILDERS: tuple[Callable[[Sequence[float]], list[Solid]], ...] = (_animal, _human, _airplane, _truck, _car)
