"""Augmentation as pure functions of images and uniform numbers.

The numbers are drawn outside, for a whole epoch at once, by one seeded generator. So an example is changed in
the same way whichever process, batch or device it falls to, under autocast too, and nothing here waits for a
device or branches on data. Images keep their floating type, whatever the numbers' is.
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
    """Changes images; the same images and the same uniform numbers give the same result."""

    @property
    def draws(self) -> int:
        """How many uniform numbers in [0, 1) each image takes."""
        ...

    def __call__(self, images: Images, uniforms: Uniforms) -> Augmented:
        """Change images (batch, channels, height, width) as the numbers (batch, draws) say."""
        ...


def choose(uniforms: Float[Tensor, "*shape"], options: int | Tensor) -> Int[Tensor, "*shape"]:
    """Integers 0 … options − 1, equally likely, from uniform numbers in [0, 1)."""
    # One correctly rounded product: the same on every machine. It stays below `options`, rounded or not.
    return (uniforms * options).long()


def between(uniforms: Float[Tensor, "*shape"], low: float, high: float) -> Float[Tensor, "*shape"]:
    """Numbers between `low` and `high` from uniform numbers in [0, 1)."""
    return low + (high - low) * uniforms


def windows(
    images: Images, top: Int[Tensor, " batch"], left: Int[Tensor, " batch"], size: tuple[int, int]
) -> Float[Tensor, "batch channels out_height out_width"]:
    """Cut a window of `size` = (height, width) out of each image, at that image's own corner.

    One gather. The corners must leave the window inside the image: pad first.
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
    """How far down and across a square of `size` pixels can be moved inside the images."""
    height, width = images.shape[2:]
    if size > min(height, width):
        raise ValueError(f"cannot crop {size}×{size} from images of {height}×{width}")
    return height - size, width - size


@dataclass(frozen=True)
class Shift:
    """Shift by whole pixels, −max_shift … max_shift down and across; zeros come in at the border."""

    max_shift: int
    draws: ClassVar[int] = 2

    def __post_init__(self) -> None:
        _at_least(0, max_shift=self.max_shift)

    def __call__(self, images: Images, uniforms: Uniforms) -> Images:
        """Shift each image by its own amount."""
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
    """Cut out a square of `size` pixels, anywhere inside the image."""

    size: int
    draws: ClassVar[int] = 2

    def __post_init__(self) -> None:
        _at_least(1, size=self.size)

    def __call__(self, images: Images, uniforms: Uniforms) -> Augmented:
        """Crop each image at its own place.

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
    """Put the image at a random place on a black square of `canvas` pixels, wholly inside it."""

    canvas: int
    draws: ClassVar[int] = 2

    def __post_init__(self) -> None:
        _at_least(1, canvas=self.canvas)

    def __call__(self, images: Images, uniforms: Uniforms) -> Augmented:
        """Place each image at its own place.

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
    """Rotate, shear, scale and translate about the centre, bilinearly; zeros come in from outside.

    Args:
        rotation: up to this many degrees either way.
        shear: up to this much either way (x moves by shear · y).
        scale: lowest and highest factor, drawn for each axis on its own.
        translation: up to this many pixels either way, down and across.

    Raises:
        ValueError: a value is not finite, or the scale may be 0, which would leave nothing to look at.
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
        """Transform each image in its own way."""
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
    """Mirror left and right, one image in two."""

    draws: ClassVar[int] = 1

    def __call__(self, images: Images, uniforms: Uniforms) -> Images:
        """Mirror the images whose number is below 1/2."""
        return torch.where(uniforms[:, 0, None, None, None] < 0.5, images.flip(3), images)


@dataclass(frozen=True)
class Brightness:
    """Add one number in [−delta, delta] to all pixels of an image. Values may leave [0, 1]."""

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
    """Stretch the pixels about their channel's mean by a factor in [low, high]. Values may leave [0, 1]."""

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
    """`Standardize` of at least one image, in a form that can be exported for batches of any size."""
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    deviation = images.std(dim=(1, 2, 3), keepdim=True, correction=0)
    return (images - mean) / deviation.clamp(min=images.shape[1:].numel() ** -0.5)


@dataclass(frozen=True)
class Standardize:
    """Mean 0 and standard deviation 1 over each image's pixels and channels.

    The deviation is kept above 1/√pixels, so that a uniform image gives zeros.
    """

    draws: ClassVar[int] = 0

    def __call__(self, images: Images, uniforms: Uniforms | None = None) -> Images:  # noqa: ARG002
        """Standardise each image by itself."""
        return standardized(images) if len(images) else images  # PyTorch would warn of no images


@dataclass(frozen=True)
class Compose:
    """One augmentation after another; each takes its own share of the uniform numbers."""

    steps: Sequence[Augmentation]

    @property
    def draws(self) -> int:
        """The numbers of all steps together."""
        return sum(step.draws for step in self.steps)

    def __call__(self, images: Images, uniforms: Uniforms) -> Augmented:
        """Apply the steps in order."""
        shares = torch.split(uniforms, [step.draws for step in self.steps], dim=1)
        for step, share in zip(self.steps, shares, strict=True):
            images = step(images, share)
        return images
