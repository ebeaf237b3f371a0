"""Convert arrays of images and labels to the tensors that `Examples` holds."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, isqrt, prod
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int, UInt8
from numpy.typing import NDArray
from torch import Tensor

from capsnet._support.errors import CapsnetError

#: Rows of at least this many square pixels are taken for images.
LEAST_SIDE = 8


def image_tensor(images: Any, name: str = "images") -> UInt8[Tensor, "examples channels height width"]:
    """Convert images to bytes in PyTorch's axis order.

    Args:
        images: an array or tensor of shape (n, height, width), (n, height, width, channels) or
            (n, channels, height, width); integers from 0 to 255, floats from 0 to 1, or bool. The axis with 1 to 4
            entries is the channels' axis.
        name: their name in error messages.

    Raises:
        CapsnetError: the shape, type or range is wrong, or a value is NaN or infinite.
    """
    array = numbers_or_text(images, name)
    if array.dtype.kind == "U":
        raise CapsnetError(f"{name} are text; they must be numbers")
    if array.dtype.kind == "b":
        array = array * np.uint8(255)
    if array.ndim == 3:
        array = array[:, None]
    if array.ndim != 4 or 0 in array.shape:
        raise CapsnetError(
            f"{name} have shape {array.shape}; they must be (n, height, width) or (n, height, width, channels)"
        )
    if array.shape[1] > 4 >= array.shape[3]:
        array = array.transpose(0, 3, 1, 2)
    if not np.isfinite(array).all():
        raise CapsnetError(f"{name} hold NaN or infinity; remove those images")
    low, high = array.min(), array.max()
    if array.dtype.kind == "f":
        if low < 0 or high > 1:
            raise CapsnetError(f"{name} are floats from {low:g} to {high:g}; scale them to 0 … 1")
        array = np.rint(array * 255)
    elif low < 0 or high > 255:
        raise CapsnetError(f"{name} are integers from {low} to {high}; they must be 0 … 255")
    return torch.from_numpy(np.ascontiguousarray(array.astype(np.uint8)))


def label_tensor(
    labels: Any, class_names: tuple[str, ...] | None, name: str = "labels", *, by_name: bool = False
) -> tuple[Int[Tensor, " examples"], tuple[str, ...]]:
    """Convert labels to class numbers.

    Args:
        labels: one number or name for each example.
        class_names: in the order of the numbers; None: the sorted distinct labels.
        name: the labels' name in error messages.
        by_name: whether labels that are numbers are names of classes, too, and not places in `class_names`.

    Returns:
        The numbers, and the names of the classes.

    Raises:
        CapsnetError: labels are not a flat list; a label is not a whole number or not in `class_names`; there are fewer
            than two classes.
    """
    array = numbers_or_text(labels, name)
    if array.ndim != 1:
        raise CapsnetError(f"{name} have shape {array.shape}; they must be one for each image")
    if array.dtype.kind == "f" and not (np.isfinite(array).all() and (array == np.rint(array)).all()):
        raise CapsnetError(f"{name} must be whole numbers; give class numbers or names")
    if array.dtype.kind in "fb":
        array = array.astype(np.int64)
    if class_names is not None and array.dtype.kind in "iu" and not by_name:  # numbers of the named classes
        if len(array) and not (array.min() >= 0 and array.max() < len(class_names)):
            raise CapsnetError(
                f"{name} are numbers from {array.min()} to {array.max()}; "
                f"with {len(class_names)} class_names they must be 0 … {len(class_names) - 1}"
            )
        numbers = array.astype(np.int64)
    else:
        known = class_names or tuple(str(value) for value in np.unique(array))
        place = {value: number for number, value in enumerate(known)}
        texts = [str(value) for value in array]
        if unknown := sorted(set(texts) - place.keys()):
            raise CapsnetError(
                f"{name}: there is no class {unknown[0]!r}; the classes are {', '.join(known)}"
            )
        numbers, class_names = np.array([place[text] for text in texts], np.int64), known
    if len(class_names) < 2:
        raise CapsnetError(f"{name} have one class only, {class_names[0]!r}; a classifier needs at least 2")
    return torch.from_numpy(numbers), class_names


def pixel_range(pixels: NDArray[Any]) -> tuple[float, float]:
    """Return the values that become 0 and 1.

    They are 0 and 255 for bytes, 0 and 1 for floats in that range, and else the smallest and the largest pixel.

    Raises:
        CapsnetError: the range is larger than a float can hold.
    """
    if pixels.dtype == np.uint8:
        return 0.0, 255.0
    low, high = float(pixels.min()), float(pixels.max())
    if pixels.dtype.kind == "f" and low >= 0 and 0 < high <= 1:
        return 0.0, 1.0
    if not isfinite(high - low):
        raise CapsnetError(f"pixels range from {low:g} to {high:g}; scale them, for example to 0 … 1")
    return low, high if high > low else low + 1


def to_bytes(pixels: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """Convert pixels to bytes: `low` and below to 0, `high` and above to 255."""
    if pixels.dtype == np.uint8 and (low, high) == (0, 255):
        return pixels
    shares = (pixels.astype(np.float64) - low) / (high - low)
    rounded: NDArray[np.uint8] = np.rint(shares.clip(0, 1) * 255).astype(np.uint8)
    return rounded


def shape_of_rows(features: int, image_shape: Sequence[int] | None) -> tuple[int, ...]:
    """Return the shape of the images that flat rows hold.

    Args:
        features: numbers in a row.
        image_shape: (height, width) or (height, width, channels). None: a square, from 8×8 on; else (1, features).

    Raises:
        CapsnetError: the shape does not fit the rows.
    """
    if image_shape is None:
        side = isqrt(features)
        return (side, side) if side * side == features and side >= LEAST_SIDE else (1, features)
    shape = tuple(int(size) for size in image_shape)
    if len(shape) not in (2, 3) or min(shape) < 1 or prod(shape) != features:
        raise CapsnetError(
            f"image_shape {shape} does not fit rows of {features} features; give (height, width) or "
            "(height, width, channels)"
        )
    return shape


def held_out(labels: Int[Tensor, " examples"], share: float, seed: int) -> Bool[Tensor, " examples"]:
    """Choose test examples at random: the same share of every class, at least one.

    Raises:
        CapsnetError: `share` is not between 0 and 1, or a class has one example only.
    """
    if not 0 < share < 1:
        raise CapsnetError(f"test_share is {share}; it must be between 0 and 1")
    chosen = torch.zeros_like(labels, dtype=torch.bool)
    generator = torch.Generator().manual_seed(seed)
    for number in labels.unique().tolist():  # type: ignore[no-untyped-call]
        where = (labels == number).nonzero()[:, 0]
        if len(where) < 2:
            raise CapsnetError(
                f"class {number} has only one example; it needs one to train on and one to test on"
            )
        count = min(len(where) - 1, max(1, round(share * len(where))))
        chosen[where[torch.randperm(len(where), generator=generator)[:count]]] = True
    return chosen


def numbers_or_text(values: Any, name: str) -> NDArray[Any]:
    """Return values as an array of numbers, bool or text.

    Raises:
        CapsnetError: the values are of another type, or rows have different sizes.
    """
    if isinstance(values, Tensor):
        values = values.detach().cpu().numpy()
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise CapsnetError(f"{name} differ in their sizes; give all the same size") from error
    if array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8", "replace")
    if array.dtype == object:
        array = array.astype(str)
    if array.dtype.kind not in "iufbU":
        raise CapsnetError(f"{name} are of type {array.dtype}; they must be numbers or text")
    return array
