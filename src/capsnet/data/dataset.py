"""The types of data: batches, sources of examples, and data sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol, Self, runtime_checkable

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from capsnet._support.errors import CapsnetError
from capsnet.data.arrays import held_out, image_tensor, label_tensor
from capsnet.data.augmentation import Augmentation


class Batch(NamedTuple):
    """Examples as the network sees them.

    K classes are present in each: 1, or 2 if digits overlap. If any number may be present, there is a column for each
    class, and -1 where a class is missing; see `capsnet.data.multi_label`.
    """

    #: The network's input, in [0, 1]; augmented brightness may leave this range.
    images: Float[Tensor, "batch channels height width"]
    #: The classes present.
    labels: Int[Tensor, "batch present"]
    #: What the capsule of each present class should reconstruct, in [0, 1].
    originals: Float[Tensor, "batch present channels height width"]

    def targets(self, num_classes: int) -> Float[Tensor, "batch num_classes"]:
        """Return T_k of the margin loss: 1 where class k is present, else 0."""
        if self.labels.shape[1] != num_classes:
            zeros = torch.zeros(len(self.labels), num_classes, device=self.labels.device)
            return zeros.scatter(1, self.labels, 1.0)
        return self._flags(num_classes)

    def _flags(self, num_classes: int) -> Float[Tensor, "batch num_classes"]:
        """Return the same for `MultiLabel`, whose missing classes are -1: they go to a column that is cut off."""
        zeros = torch.zeros(len(self.labels), num_classes + 1, device=self.labels.device)
        return zeros.scatter(1, self.labels % (num_classes + 1), 1.0)[:, :-1]


@runtime_checkable
class Source(Protocol):
    """Examples that are accessed by index.

    The same indices and uniform numbers give the same batch.
    """

    @property
    def draws(self) -> int:
        """Return the count of uniform numbers in [0, 1) per example; 0 without randomness."""
        ...

    def __len__(self) -> int: ...

    def to(self, device: torch.device | str) -> Source:
        """Return the same source with its tensors on `device`."""
        ...

    def batch(
        self, indices: Int[Tensor, " batch"], uniforms: Float[Tensor, "batch draws"] | None = None
    ) -> Batch:
        """Return the examples `indices`; `uniforms` may be None only if `draws` is 0."""
        ...


def middle_batch(source: Source, indices: Int[Tensor, " batch"]) -> Batch:
    """Return the examples `indices`, with all uniform random numbers 0.5, the middle of their range."""
    uniforms = torch.full((len(indices), source.draws), 0.5, device=indices.device) if source.draws else None
    return source.batch(indices, uniforms)


@dataclass(frozen=True, eq=False)
class Examples:
    """Labelled images, all of them on one device.

    Args:
        images: pixels 0 … 255, shape (examples, channels, height, width).
        labels: class numbers, shape (examples,).
        augment: the augmentation of a batch's images. None: no augmentation.
        groups: group id per image (views of one object), for cluster-robust intervals, shape (examples,). None if
            unknown.
        weights: how often each example is trained on, relative to the others, shape (examples,). None: all the same.

    Raises:
        ValueError: the numbers of images, labels, groups and weights differ; images are not bytes of this shape; labels
            are not integers; weights are negative, not finite or all 0.
    """

    images: UInt8[Tensor, "examples channels height width"]
    labels: Int[Tensor, " examples"]
    augment: Augmentation | None = None
    groups: Int[Tensor, " examples"] | None = None
    weights: Float[Tensor, " examples"] | None = None

    def __post_init__(self) -> None:
        if len(self.images) != len(self.labels):
            raise ValueError(f"{len(self.images)} images and {len(self.labels)} labels")
        if self.images.ndim != 4 or self.images.dtype != torch.uint8:
            raise ValueError(
                f"images are {self.images.dtype} of shape {tuple(self.images.shape)}; they must be torch.uint8, "
                "0 to 255, of shape (examples, channels, height, width)"
            )
        if self.labels.ndim != 1 or self.labels.dtype != torch.int64:
            raise ValueError(
                f"labels are {self.labels.dtype} of shape {tuple(self.labels.shape)}; they must be torch.int64 of "
                "shape (examples,)"
            )
        if self.groups is not None and self.groups.shape != self.labels.shape:
            raise ValueError(f"{len(self.images)} images and groups of shape {tuple(self.groups.shape)}")
        if self.weights is not None:
            if self.weights.shape != self.labels.shape:
                raise ValueError(
                    f"{len(self.images)} images and weights of shape {tuple(self.weights.shape)}"
                )
            finite = bool(self.weights.isfinite().all()) and bool((self.weights >= 0).all())
            if not finite or not self.weights.sum() > 0:
                raise ValueError("weights must be finite, at least 0, and not all 0")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def draws(self) -> int:
        """Return the count of uniform numbers in [0, 1) per example."""
        return self.augment.draws if self.augment else 0

    def to(self, device: torch.device | str) -> Examples:
        """Return the same examples on `device`."""
        moved = {name: part.to(device) for name, part in self._columns().items()}
        return replace(self, **moved)

    def subset(self, indices: Int[Tensor, " chosen"]) -> Examples:
        """Return the examples `indices`, in that order, with the same augmentation."""
        return replace(self, **{name: part[indices] for name, part in self._columns().items()})

    def _columns(self) -> dict[str, Any]:
        names = ("images", "labels", "groups", "weights")
        return {name: part for name in names if (part := getattr(self, name)) is not None}

    def batch(
        self, indices: Int[Tensor, " batch"], uniforms: Float[Tensor, "batch draws"] | None = None
    ) -> Batch:
        """Return the examples `indices` as float images, augmented by `uniforms`.

        Raises:
            ValueError: the augmentation does not get `draws` uniform numbers for each example.
        """
        images = self.images.index_select(0, indices).to(torch.float32) / 255
        if self.augment:
            if uniforms is None:
                uniforms = images.new_empty(len(indices), 0)
            if uniforms.shape != (len(indices), self.draws):
                raise ValueError(
                    f"the augmentation takes uniform numbers of shape {(len(indices), self.draws)}, "
                    f"not {tuple(uniforms.shape)}"
                )
            images = self.augment(images, uniforms)
        labels = self.labels.index_select(0, indices)[:, None]
        originals = images.clamp(0, 1) if self.augment else images  # brightness may leave [0, 1]
        return Batch(images, labels, originals[:, None])


@dataclass(frozen=True, eq=False)
class Dataset:
    """A training source, a test source, and a description of them."""

    name: str
    train: Source
    test: Source
    class_names: tuple[str, ...]
    #: (channels, height, width) of the network's input, after augmentation.
    image_shape: tuple[int, int, int]
    #: One sentence: the origin of the data, and any difference from the published set.
    provenance: str
    #: Whether models of this data set first scale each image to mean 0 and standard deviation 1.
    standardize: bool = False
    #: Images to calibrate with, neither trained nor tested on; None if the data set has no such split.
    validation: Source | None = None

    @classmethod
    def from_arrays(
        cls,
        images: Any,
        labels: Any,
        test_images: Any = None,
        test_labels: Any = None,
        *,
        class_names: Sequence[str] | None = None,
        test_share: float = 0.2,
        seed: int = 0,
        standardize: bool = False,
        name: str = "arrays",
    ) -> Self:
        """Make a data set from images and labels in memory.

        Args:
            images: (n, height, width), (n, height, width, channels) or (n, channels, height, width); NumPy arrays,
                tensors or lists; integers from 0 to 255, or floats from 0 to 1.
            labels: a class number or name for each image.
            test_images, test_labels: the test set; None: `test_share` of every class is held out.
            class_names: in the order of the numbers; None: the sorted distinct labels.
            test_share: share of each class that is held out. Not used with a test set.
            seed: random seed for the choice of held-out examples.
            standardize: see the field.
            name: name of the data set in reports.

        Raises:
            CapsnetError: images or labels have the wrong shape, type or range, or their numbers differ.

        >>> import numpy as np
        >>> dataset = Dataset.from_arrays(np.zeros((20, 28, 28), np.uint8), ["cat", "dog"] * 10)
        >>> len(dataset.train), len(dataset.test), dataset.class_names, dataset.image_shape
        (16, 4, ('cat', 'dog'), (1, 28, 28))
        """
        pixels = image_tensor(images)
        numbers, names = label_tensor(labels, None if class_names is None else tuple(class_names))
        if len(pixels) != len(numbers):
            raise CapsnetError(
                f"{name}: {len(pixels)} images and {len(numbers)} labels; give one label per image"
            )
        if (test_images is None) != (test_labels is None):
            raise CapsnetError(f"{name}: give test_images and test_labels, or neither")
        if test_images is None:
            test = held_out(numbers, test_share, seed)
            train_part, test_part = (
                Examples(pixels[~test], numbers[~test]),
                Examples(pixels[test], numbers[test]),
            )
            about = f"{len(test_part):,} of {len(pixels):,} held out for testing"
        else:
            test_pixels = image_tensor(test_images, "test_images")
            by_name = class_names is None
            test_numbers, _ = label_tensor(test_labels, names, "test_labels", by_name=by_name)
            if len(test_pixels) != len(test_numbers):
                raise CapsnetError(
                    f"{name}: {len(test_pixels)} test_images and {len(test_numbers)} test_labels; "
                    "give one label per image"
                )
            if test_pixels.shape[1:] != pixels.shape[1:]:
                raise CapsnetError(
                    f"{name}: test_images are {tuple(test_pixels.shape[1:])} (channels, height, width) and images "
                    f"are {tuple(pixels.shape[1:])}; give both the same size"
                )
            train_part, test_part = Examples(pixels, numbers), Examples(test_pixels, test_numbers)
            about = f"{len(train_part):,} to train on and {len(test_part):,} to test on"
        channels, height, width = pixels.shape[1:]
        provenance = f"{name}: images from arrays, {about}."
        return cls(name, train_part, test_part, names, (channels, height, width), provenance, standardize)

    @property
    def classes_present(self) -> int:
        """Return the number of classes in each example: 2 if digits overlap; all of them for `MultiLabel`; else 1."""
        return middle_batch(self.test, torch.zeros(1, dtype=torch.int64)).labels.shape[1]

    @property
    def is_multi_label(self) -> bool:
        """Return whether an image may show any number of classes."""
        return self.classes_present == len(self.class_names)
