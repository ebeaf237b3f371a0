"""Augmentation as pure functions of images and uniform random numbers.

The caller draws the random numbers for a whole epoch, with one seeded generator. So an example is augmented in the same
way in every process, batch and device, also under autocast. No function here syncs with the device or branches on
data. Images keep their floating type.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

from capsnet.data.warping import affine_matrices, warp

Images = Float[Tensor, "batch channels height width"]
Uniforms = Float[Tensor, "batch draws"]
Augmented = Float[Tensor, "batch channels new_height new_width"]


@runtime_checkable
class Augmentation(Protocol):
    """Changes images. The same images and numbers give the same result."""

    @property
    def draws(self) -> int:
        """Return the count of uniform numbers in [0, 1) per image."""
        ...

    def __call__(self, images: Images, uniforms: Uniforms) -> Augmented:
        """Change images (batch, channels, height, width) by numbers (batch, draws)."""
        ...


def choose(uniforms: Float[Tensor, "*shape"], options: int | Tensor) -> Int[Tensor, "*shape"]:
    """Convert uniform numbers in [0, 1) to equally likely integers 0 … options − 1."""
    # One correctly rounded product is the same on every machine, and rounding never gives `options` itself.
    return (uniforms * options).long()


def between(uniforms: Float[Tensor, "*shape"], low: float, high: float) -> Float[Tensor, "*shape"]:
    """Convert uniform numbers in [0, 1) to numbers between `low` and `high`."""
    return low + (high - low) * uniforms


def windows(
    images: Images, top: Int[Tensor, " batch"], left: Int[Tensor, " batch"], size: tuple[int, int]
) -> Float[Tensor, "batch channels out_height out_width"]:
    """Cut a window of `size` = (height, width) out of each image.

    Each image has its own top left corner. The windows must be inside the images; pad first if needed.
    """
    rows = top[:, None] + torch.arange(size[0], device=images.device)
    columns = left[:, None] + torch.arange(size[1], device=images.device)
    index = (rows[:, :, None] * images.shape[3] + columns[:, None, :]).flatten(1)
    index = index[:, None].expand(-1, images.shape[1], -1)
    return images.flatten(2).gather(2, index).view(*images.shape[:2], *size)


def _at_least(least: int, **sizes: int) -> None:
    for name, size in sizes.items():
        if size < least:
            raise ValueError(f"{name} is {size}; it must be at least {least}")


def _finite(augmentation: Augmentation, *values: float) -> None:
    if not all(map(isfinite, values)):
        raise ValueError(f"{augmentation}: the values must be finite")


def _room(images: Images, size: int) -> tuple[int, int]:
    """Return how far a square of `size` pixels can move in the images: down, across."""
    height, width = images.shape[2:]
    if size > min(height, width):
        raise ValueError(f"cannot crop {size}×{size} from images of {height}×{width}")
    return height - size, width - size


@dataclass(frozen=True)
class Shift:
    """Shift by −max_shift … max_shift whole pixels, down and across.

    New pixels at the border are 0.
    """

    max_shift: int
    draws: ClassVar[int] = 2

    def __post_init__(self) -> None:
        _at_least(0, max_shift=self.max_shift)

    def __call__(self, images: Images, uniforms: Uniforms) -> Images:
        """Shift each image by a different amount."""
        margin = self.max_shift
        options = 2 * margin + 1
        return windows(
            pad(images, (margin, margin, margin, margin)),
            choose(uniforms[:, 0], options),
            choose(uniforms[:, 1], options),
            (images.shape[2], images.shape[3]),
        )


@dataclass(frozen=True)
class RandomCrop:
    """Cut out a square of `size` pixels at a random place in the image."""

    size: int
    draws: ClassVar[int] = 2

    def __post_init__(self) -> None:
        _at_least(1, size=self.size)

    def __call__(self, images: Images, uniforms: Uniforms) -> Augmented:
        """Crop each image at a different place.

        Raises:
            ValueError: the image is smaller than the square.
        """
        down, across = _room(images, self.size)
        top, left = choose(uniforms[:, 0], down + 1), choose(uniforms[:, 1], across + 1)
        return windows(images, top, left, (self.size, self.size))


@dataclass(frozen=True)
class CenterCrop:
    """Cut out the square of `size` pixels in the middle."""

    size: int
    draws: ClassVar[int] = 0

    def __post_init__(self) -> None:
        _at_least(1, size=self.size)

    def __call__(self, images: Images, uniforms: Uniforms | None = None) -> Augmented:  # noqa: ARG002
        """Crop every image at the same place.

        Raises:
            ValueError: the image is smaller than the square.
        """
        down, across = _room(images, self.size)
        top, left = down // 2, across // 2
        return images[:, :, top : top + self.size, left : left + self.size]


@dataclass(frozen=True)
class RandomPlacement:
    """Put the whole image at a random place on a black square of `canvas` pixels."""

    canvas: int
    draws: ClassVar[int] = 2

    def __post_init__(self) -> None:
        _at_least(1, canvas=self.canvas)

    def __call__(self, images: Images, uniforms: Uniforms) -> Augmented:
        """Put each image at a different place.

        Raises:
            ValueError: the canvas is smaller than the image.
        """
        down, across = self.canvas - images.shape[2], self.canvas - images.shape[3]
        if min(down, across) < 0:
            raise ValueError(f"images of {tuple(images.shape[2:])} do not fit a canvas of {self.canvas}")
        return windows(
            pad(images, (across, across, down, down)),
            choose(uniforms[:, 0], down + 1),
            choose(uniforms[:, 1], across + 1),
            (self.canvas, self.canvas),
        )


@dataclass(frozen=True)
class Affine:
    """Rotate, shear, scale and translate about the centre, bilinearly.

    Pixels from outside the image are 0.

    Args:
        rotation: maximum angle in degrees, in both directions.
        shear: maximum shear, in both directions (x moves by shear · y).
        scale: lowest and highest factor, drawn for each axis separately.
        translation: maximum shift in pixels, in both directions, down and across.

    Raises:
        ValueError: a value is not finite, or the scale may be 0, which would make the image vanish.
    """

    rotation: float = 0.0
    shear: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    translation: float = 0.0
    draws: ClassVar[int] = 6

    def __post_init__(self) -> None:
        _finite(self, self.rotation, self.shear, *self.scale, self.translation)
        if min(self.scale) <= 0 <= max(self.scale):
            raise ValueError(f"{self}: the scale must not be 0")

    def __call__(self, images: Images, uniforms: Uniforms) -> Images:
        """Transform each image by a different map."""
        degrees, shear, wide, high, across, down = uniforms.unbind(1)
        matrices = affine_matrices(
            rotation=between(degrees, -self.rotation, self.rotation),
            shear=between(shear, -self.shear, self.shear),
            scale=torch.stack((between(wide, *self.scale), between(high, *self.scale)), dim=1),
            translation=(torch.stack((across, down), dim=1) * 2 - 1) * self.translation,
        )
        return warp(images, matrices)


@dataclass(frozen=True)
class Flip:
    """Mirror half of the images horizontally."""

    draws: ClassVar[int] = 1

    def __call__(self, images: Images, uniforms: Uniforms) -> Images:
        """Mirror the images whose number is below 1/2."""
        return torch.where(uniforms[:, 0, None, None, None] < 0.5, images.flip(3), images)


@dataclass(frozen=True)
class Brightness:
    """Add a number in [−delta, delta] to all pixels. Values may leave [0, 1]."""

    delta: float
    draws: ClassVar[int] = 1

    def __post_init__(self) -> None:
        _finite(self, self.delta)

    def __call__(self, images: Images, uniforms: Uniforms) -> Images:
        """Brighten or darken each image."""
        delta = between(uniforms[:, 0], -self.delta, self.delta)[:, None, None, None]
        return (images + delta).to(images.dtype)


@dataclass(frozen=True)
class Contrast:
    """Scale the pixels about their channel's mean by a factor in [low, high].

    Values may leave [0, 1].
    """

    low: float
    high: float
    draws: ClassVar[int] = 1

    def __post_init__(self) -> None:
        _finite(self, self.low, self.high)

    def __call__(self, images: Images, uniforms: Uniforms) -> Images:
        """Change the contrast of each image."""
        mean = images.mean(dim=(2, 3), keepdim=True)
        factor = between(uniforms[:, 0], self.low, self.high)[:, None, None, None]
        return ((images - mean) * factor + mean).to(images.dtype)


def standardized(images: Images) -> Images:
    """Standardise at least one image each; can be exported for any batch size.

    See `Standardize`.
    """
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    deviation = images.std(dim=(1, 2, 3), keepdim=True, correction=0)
    return (images - mean) / deviation.clamp(min=images.shape[1:].numel() ** -0.5)


@dataclass(frozen=True)
class Standardize:
    """Scale each image to mean 0 and standard deviation 1 over pixels and channels.

    The deviation is at least 1/√pixels, so that a uniform image gives zeros.
    """

    draws: ClassVar[int] = 0

    def __call__(self, images: Images, uniforms: Uniforms | None = None) -> Images:  # noqa: ARG002
        """Standardise each image."""
        return standardized(images) if len(images) else images  # PyTorch warns of an empty batch


@dataclass(frozen=True)
class Compose:
    """Apply several augmentations in order. Each takes its share of the numbers."""

    steps: Sequence[Augmentation]

    @property
    def draws(self) -> int:
        """Return the sum of the steps' counts."""
        return sum(step.draws for step in self.steps)

    def __call__(self, images: Images, uniforms: Uniforms) -> Augmented:
        """Apply the steps in order."""
        shares = torch.split(uniforms, [step.draws for step in self.steps], dim=1)
        for step, share in zip(self.steps, shares, strict=True):
            images = step(images, share)
        return images
