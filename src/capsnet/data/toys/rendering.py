"""Render toys under smallNORB's viewpoints, to use without smallNORB's labels.

Every toy is a union of a few solids (`shapes`), rendered by a small ray marcher. Only the layout is smallNORB's:
5 categories × 10 instances × 18 azimuths × 9 elevations × 6 lightings. The larger set has 40 instances.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import normalize

from capsnet.data.npz import read_npz, write_npz
from capsnet.data.toys.shapes import Shape, toy
from capsnet.data.views import TEST_INSTANCES, TRAIN_INSTANCES, Views

AZIMUTHS = tuple(range(0, 360, 20))
ELEVATIONS = tuple(range(30, 75, 5))
SIZE = 48
#: Rays per pixel along each axis. A pixel is their mean.
SUPERSAMPLING = 2
#: Instances of each category to train on and to test on, by the name of the set.
SETS: Mapping[str, tuple[Sequence[int], Sequence[int]]] = {
    "objects3d": (TRAIN_INSTANCES, TEST_INSTANCES),
    "objects3d200": (range(20), range(20, 40)),
}
#: Increase when the images change, so that an older cache is not used.
VERSION = 1

#: For each of six lightings: lamps (direction to the lamp, strength), ambient light, and background brightness. The
#: lamps do not move: x points to the camera, y to its right, z up. Only the toy turns.
LIGHTINGS: tuple[tuple[tuple[tuple[tuple[float, float, float], float], ...], float, float], ...] = (
    ((((0.2, 0.0, 1.0), 0.7),), 0.15, 0.75),
    ((((0.5, -1.0, 0.7), 0.8),), 0.15, 0.70),
    ((((0.5, 1.0, 0.7), 0.8),), 0.15, 0.70),
    ((((1.0, 0.0, 0.4), 0.7),), 0.10, 0.65),
    ((((0.3, -1.0, 0.6), 0.45), ((0.3, 1.0, 0.6), 0.45)), 0.15, 0.80),
    ((((1.0, -0.6, 0.6), 0.4), ((-0.5, 0.6, 1.0), 0.6)), 0.20, 0.80),
)
DISTANCE = 4.0
#: Tangent of half the field of view: the ball of radius 1 just fills the image.
FIELD = 0.25
NEAR_ENOUGH = 0.003
MAX_STEPS = 48


def render(
    shape: Shape,
    azimuths: Sequence[float] = AZIMUTHS,
    elevations: Sequence[float] = ELEVATIONS,
    lightings: Sequence[int] = tuple(range(len(LIGHTINGS))),
    size: int = SIZE,
) -> UInt8[Tensor, "azimuths elevations lightings size size"]:
    """Render a shape from every azimuth and elevation (degrees), in every lighting."""
    heights = torch.deg2rad(torch.tensor(elevations, dtype=torch.float32))
    pictures = []
    for azimuth in azimuths:  # one at a time, so that the rays fit into the processor's cache
        views = torch.stack((torch.full_like(heights, math.radians(azimuth)), heights), dim=1)
        pictures.append(_render(shape, views, lightings, size))
    return (torch.stack(pictures) * 255).round().to(torch.uint8)


def _render(
    shape: Shape, views: Float[Tensor, "views 2"], lightings: Sequence[int], size: int
) -> Float[Tensor, "views lightings size size"]:
    fine = size * SUPERSAMPLING
    hit, points = _march(shape, *_rays(*_cameras(views), fine))
    normals = _normals(shape, points)
    # The room's axes in the coordinates of the turned toy, for each hit.
    room = _room(views)[hit.nonzero()[:, 0] // fine**2]
    pictures = []
    for lighting in lightings:
        lamps, ambient, background = LIGHTINGS[lighting]
        shade = torch.full((len(points),), ambient)
        for towards, strength in lamps:
            direction = normalize(torch.tensor(towards), dim=0)
            shade += strength * ((direction @ room) * normals).sum(dim=1).clamp(min=0)
        picture = torch.full((len(hit),), background)
        picture[hit] = shade.clamp(max=1)
        pictures.append(picture.view(-1, size, SUPERSAMPLING, size, SUPERSAMPLING).mean(dim=(2, 4)))
    return torch.stack(pictures, dim=1)


def _room(views: Float[Tensor, "views 2"]) -> Float[Tensor, "views 3 3"]:
    """Return the room's axes (to the camera, right, up) in the toy's frame, as rows."""
    azimuth = views[:, 0]
    zero, one = torch.zeros_like(azimuth), torch.ones_like(azimuth)
    cos, sin = azimuth.cos(), azimuth.sin()
    rows = torch.stack((cos, sin, zero, -sin, cos, zero, zero, zero, one), dim=1)
    return rows.view(-1, 3, 3)


def _cameras(views: Float[Tensor, "views 2"]) -> tuple[Float[Tensor, "views 3"], Float[Tensor, "views 3 3"]]:
    """Return each camera's position, and the axes right, down, forward of its image."""
    elevation = views[:, 1:]
    towards, right, up = _room(views).unbind(1)
    out = elevation.cos() * towards + elevation.sin() * up
    down = elevation.sin() * towards - elevation.cos() * up
    return DISTANCE * out, torch.stack((right, down, -out), dim=1)


def _rays(
    eye: Float[Tensor, "views 3"], axes: Float[Tensor, "views 3 3"], size: int
) -> tuple[Float[Tensor, "rays 3"], Float[Tensor, "rays 3"]]:
    place = ((torch.arange(size) + 0.5) / size * 2 - 1) * FIELD * 1.04
    down, right = torch.meshgrid(place, place, indexing="ij")
    local = torch.stack((right, down, torch.ones_like(right)), dim=2).view(1, -1, 3)
    directions = normalize(local @ axes, dim=2)
    return eye[:, None].expand_as(directions).reshape(-1, 3), directions.reshape(-1, 3)


def _march(
    shape: Shape, origins: Float[Tensor, "rays 3"], directions: Float[Tensor, "rays 3"]
) -> tuple[Tensor, Float[Tensor, "hits 3"]]:
    """Return which rays hit the shape, and the points where they do.

    Sphere tracing: each ray advances by its distance to the shape, until that is almost 0.
    """
    middle = -(origins * directions).sum(dim=1)
    inside = 1 - (origins.square().sum(dim=1) - middle.square())  # of the ball of radius 1, along the ray
    alive = (inside > 0).nonzero()[:, 0]
    reach = inside[alive].sqrt()
    travelled, farthest = middle[alive] - reach, middle[alive] + reach
    hit = torch.zeros(len(origins), dtype=torch.bool)
    ends = torch.zeros_like(origins)
    origin, direction = origins[alive], directions[alive]
    for _ in range(MAX_STEPS):
        points = origin + travelled[:, None] * direction
        distance = shape.distance(points)
        arrived = distance < NEAR_ENOUGH
        hit[alive[arrived]] = True
        ends[alive[arrived]] = points[arrived]
        travelled = travelled + distance
        going = ~arrived & (travelled < farthest)
        alive, origin, direction = alive[going], origin[going], direction[going]
        travelled, farthest = travelled[going], farthest[going]
        if not len(alive):
            break
    return hit, ends[hit]


def _normals(shape: Shape, points: Float[Tensor, "hits 3"]) -> Float[Tensor, "hits 3"]:
    """Return the surface normals: the normalised gradient of the distance."""
    with torch.enable_grad():
        points = points.detach().requires_grad_()
        (slope,) = torch.autograd.grad(shape.distance(points).sum(), points)
    return normalize(slope, dim=1)


def render_instances(instances: Sequence[int], elevations: Sequence[int] = ELEVATIONS) -> Views:
    """Render all views of the toys `instances` of each category.

    Shows a progress bar on a terminal.
    """
    from rich.console import Console
    from rich.progress import track

    toys = [(category, instance) for instance in instances for category in range(5)]
    console = Console(stderr=True)
    pictures = [
        render(toy(category, instance), elevations=elevations).flatten(0, 2)
        for category, instance in track(
            toys,
            "rendering toys (only once)",
            console=console,
            disable=not sys.stderr.isatty(),
            transient=True,
        )
    ]
    azimuth, elevation, lighting = torch.cartesian_prod(
        torch.tensor(AZIMUTHS), torch.tensor(elevations), torch.arange(len(LIGHTINGS))
    ).T
    category, instance = torch.tensor(toys).T
    each = len(azimuth)
    return Views(
        images=torch.cat(pictures)[:, None],
        category=category.repeat_interleave(each),
        instance=instance.repeat_interleave(each),
        azimuth=azimuth.repeat(len(toys)),
        elevation=elevation.repeat(len(toys)),
        lighting=lighting.repeat(len(toys)),
    )


def rendered_views(name: str) -> tuple[Views, Views, str]:
    """Return training views, test views (972 images of each toy) and their provenance.

    They are rendered once, then cached.

    Args:
        name: the set, one of `SETS`.
    """
    import pooch

    cache = Path(pooch.os_cache("capsnet")) / f"{name}-{VERSION}"
    parts = []
    for part, instances in zip(("train", "test"), SETS[name], strict=True):
        path = cache / f"{part}.npz"
        if not path.is_file():
            made = render_instances(instances)
            write_npz(path, {key: value.numpy() for key, value in vars(made).items()})
        arrays = read_npz(path)
        parts.append(Views(**{key: torch.from_numpy(value) for key, value in arrays.items()}))
    about = (
        f"Our own rendered toys: {len(parts[0]):,} training images and {len(parts[1]):,} test images of other "
        "instances, 48×48, with smallNORB's viewpoints and as many lightings. It is NOT smallNORB."
    )
    return parts[0], parts[1], about
