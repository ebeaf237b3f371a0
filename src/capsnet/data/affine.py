"""Digits on a larger canvas, for tests with affine transforms (section 5.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from capsnet.data import digits
from capsnet.data.augmentation import RandomPlacement, between
from capsnet.data.dataset import Dataset, Examples, Source
from capsnet.data.fixed_random import freeze, frozen_uniforms
from capsnet.data.masks import boxes
from capsnet.data.registry import register
from capsnet.data.warping import affine_matrices, inverse, sample

CANVAS = 40
#: Tables of `frozen_uniforms`, one for each use.
PLACEMENT_STREAM, AFFINE_STREAM, SEVERITY_STREAM = 2, 3, 4

Transform = Literal["rotation", "shear", "scale", "translation"]
#: Amounts of each transform in `severity_series`. Rotation is in degrees, shear in x per y, scale is 1 + s or its
#: inverse, and translation is in pixels along both axes.
SEVERITIES: Mapping[Transform, Sequence[float]] = {
    "rotation": (0, 10, 20, 30, 40, 50, 60),
    "shear": (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6),
    "scale": (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6),
    "translation": (0, 1, 2, 3, 4, 5, 6),
}


def affine_test_set(
    examples: Examples,
    rotation: float = 20,
    shear: float = 0.2,
    scale: tuple[float, float] = (0.8, 1.2),
    canvas: int = CANVAS,
) -> Examples:
    """Rotate, shear and scale each image, and place it at random on the canvas.

    The two axes are scaled independently, and all ink stays on the canvas. The same examples give the same pixels on
    every machine. The ranges are similar to affNIST's, but not the same. Ink reaches places where `RandomPlacement` of
    the whole image never puts it; see `affine_test_maps`.

    Args:
        examples: digits, without augmentation.
        rotation: maximum angle in degrees, in both directions.
        shear: maximum shift of x per unit of y, in both directions.
        scale: lowest and highest factor.
        canvas: height and width of the result.
    """
    matrices = affine_test_maps(examples, rotation, shear, scale, canvas)
    return replace(examples, images=exact_warp(examples.images, matrices, canvas))


def affine_test_maps(
    examples: Examples,
    rotation: float = 20,
    shear: float = 0.2,
    scale: tuple[float, float] = (0.8, 1.2),
    canvas: int = CANVAS,
) -> Float[Tensor, "examples 2 3"]:
    """Return the maps of `affine_test_set`, from image to canvas coordinates.

    Both coordinates are in pixels from the centre. The last column is the translation (across, down).
    """
    uniforms = frozen_uniforms(AFFINE_STREAM, len(examples), 6)
    matrices = affine_matrices(
        rotation=between(uniforms[:, 0], -rotation, rotation),
        shear=between(uniforms[:, 1], -shear, shear),
        scale=between(uniforms[:, 2:4], *scale),
        translation=torch.zeros(len(examples), 2, dtype=torch.float64),
    )
    matrices[:, :, 2] = _anywhere(examples.images, matrices[:, :, :2], uniforms[:, 4:], canvas)
    return matrices


def severity_series(
    examples: Examples, transform: Transform, amounts: Sequence[float] | None = None, canvas: int = CANVAS
) -> dict[float, Examples]:
    """Apply one transform in increasing amounts: amount → transformed examples.

    The direction (clockwise or not, larger or smaller, …) is fixed for each example. It is the same for every amount
    and on every machine. Examples are centred on the canvas.

    Args:
        examples: digits, without augmentation.
        transform: the transform.
        amounts: in the units of `SEVERITIES`, whose values are the default.
        canvas: height and width of the result.
    """
    signs = (frozen_uniforms(SEVERITY_STREAM, len(examples), 2) < 0.5).double() * 2 - 1
    still = torch.zeros_like(signs)
    series = {}
    for amount in SEVERITIES[transform] if amounts is None else amounts:
        matrices = affine_matrices(
            rotation=amount * signs[:, 0] if transform == "rotation" else still[:, 0],
            shear=amount * signs[:, 0] if transform == "shear" else still[:, 0],
            scale=(1 + amount) ** signs[:, :1].expand(-1, 2) if transform == "scale" else still + 1,
            translation=amount * signs if transform == "translation" else still,
        )
        series[amount] = replace(examples, images=exact_warp(examples.images, matrices, canvas))
    return series


def exact_warp(
    images: UInt8[Tensor, "examples channels height width"],
    matrices: Float[Tensor, "examples 2 3"],
    canvas: int,
) -> UInt8[Tensor, "examples channels canvas canvas"]:
    """Warp bilinearly to whole grey values, with the same result on every machine.

    The inverse maps are rounded to multiples of 2⁻¹⁶, a difference that is not visible. After that `sample` is exact.
    """
    back = (inverse(matrices.double()) * 2**16).round() / 2**16
    parts = [
        (sample(some.double(), its_back, (canvas, canvas)) + 0.5).floor().to(torch.uint8)
        for some, its_back in zip(images.split(500), back.split(500), strict=True)  # type: ignore[no-untyped-call]
    ]
    return torch.cat(parts)


def _anywhere(
    images: UInt8[Tensor, "examples channels height width"],
    linear: Float[Tensor, "examples 2 2"],
    uniforms: Float[Tensor, "examples 2"],
    canvas: int,
) -> Float[Tensor, "examples 2"]:
    """Return translations (across, down) that keep all transformed ink on the canvas."""
    top, left, bottom, right = boxes(images[:, None])[:, 0].double().unbind(1)
    across, down = images.shape[3] / 2, images.shape[2] / 2
    corners = torch.stack(
        [torch.stack((x - across, y - down), dim=1) for x in (left, right) for y in (top, bottom)], dim=1
    )
    moved = corners @ linear.mT
    lowest, highest = -canvas / 2 - moved.amin(dim=1), canvas / 2 - moved.amax(dim=1)
    middle = (lowest + highest) / 2
    room = (highest - lowest).clamp(min=0)  # 0 if the ink is larger than the canvas; it is centred
    return middle + (uniforms - 0.5) * room


@register("mnist40", "affnist-synth", "affnist")
def load(name: str, data_dir: Path | str | None = None, download: bool = True) -> Dataset:
    """Load `mnist40`, `affnist-synth` or `affnist`.

    All three train on MNIST digits at random places on 40×40. Their test sets differ: MNIST's test digits at fixed
    random places; the same digits transformed by `affine_test_set`; or the published affNIST test set, which must be on
    this machine.

    Raises:
        CapsnetError: MNIST or affNIST is missing or damaged.
    """
    base = digits.load("mnist", data_dir, download)
    assert isinstance(base.train, Examples)
    assert isinstance(base.test, Examples)
    placed = RandomPlacement(CANVAS)
    train = replace(base.train, augment=placed)
    about = f"Training digits at random places on {CANVAS}×{CANVAS}, from {base.provenance.rstrip('.')}"
    test: Source
    if name == "mnist40":
        test = freeze(replace(base.test, augment=placed), PLACEMENT_STREAM)
        about += "; test digits at fixed random places."
    elif name == "affnist-synth":
        test = affine_test_set(base.test)
        about += (
            "; tested on our own fixed affine transforms of MNIST's test digits (rotation ±20°, shear ±0.2, "
            "scale 0.8 to 1.2, any place), which are NOT affNIST."
        )
    else:
        from capsnet.data.affnist import load_affnist_test

        test = load_affnist_test(data_dir)
        about += f"; tested on {len(test):,} digits of the published affNIST test set."
    return Dataset(name, train, test, base.class_names, (1, CANVAS, CANVAS), about)
