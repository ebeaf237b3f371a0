"""What the rest of the package knows of data: sources of batches, and data sets made of two of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from capsnet.data.augmentation import Augmentation, Standardize


class Batch(NamedTuple):
    """Examples as the network sees them. K classes are present in each: 1, or 2 if digits overlap."""

    #: The network's input, in [0, 1] unless the data set standardises.
    images: Float[Tensor, "batch channels height width"]
    #: The classes present.
    labels: Int[Tensor, "batch present"]
    #: What the capsule of each present class should reconstruct, in [0, 1].
    originals: Float[Tensor, "batch present channels height width"]

    def targets(self, classes: int) -> Float[Tensor, "batch classes"]:
        """T_k of the margin loss: 1 where class k is present, else 0."""
        zeros = torch.zeros(len(self.labels), classes, device=self.labels.device)
        return zeros.scatter(1, self.labels, 1.0)


@runtime_checkable
class Source(Protocol):
    """Examples that can be asked for by number. The same indices and uniform numbers give the same batch."""

    @property
    def draws(self) -> int:
        """How many uniform numbers in [0, 1) each example takes; 0 if nothing is random."""
        ...

    def __len__(self) -> int: ...

    def to(self, device: torch.device | str) -> Source:
        """The same source with its tensors on `device`."""
        ...

    def batch(
        self, indices: Int[Tensor, " batch"], uniforms: Float[Tensor, "batch draws"] | None = None
    ) -> Batch:
        """The examples `indices`; `uniforms` (batch, draws) may be None only if `draws` is 0."""
        ...


@dataclass(frozen=True, eq=False)
class Examples:
    """Labelled images, all of them on one device.

    Args:
        images: pixels 0 … 255, shape (examples, channels, height, width).
        labels: class numbers, shape (examples,).
        augment: what happens to the images of a batch. None leaves them as they are.
        standardize: the network sees each image with mean 0 and deviation 1. Capsules still reconstruct the
            image in [0, 1].
        groups: which thing each image shows, where several show the same one, shape (examples,): answers to images
            of one thing are not independent. None: nothing is known of that.

    Raises:
        ValueError: not a label, or a group, for each image; images that are no bytes of this shape, labels that are
            no integers.
    """

    images: UInt8[Tensor, "examples channels height width"]
    labels: Int[Tensor, " examples"]
    augment: Augmentation | None = None
    standardize: bool = False
    groups: Int[Tensor, " examples"] | None = None

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

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def draws(self) -> int:
        """How many uniform numbers in [0, 1) the augmentation takes for each example."""
        return self.augment.draws if self.augment else 0

    def to(self, device: torch.device | str) -> Examples:
        """The same examples on `device`."""
        groups = None if self.groups is None else self.groups.to(device)
        return replace(self, images=self.images.to(device), labels=self.labels.to(device), groups=groups)

    def subset(self, indices: Int[Tensor, " chosen"]) -> Examples:
        """The examples `indices`, in that order, with the same augmentation."""
        groups = None if self.groups is None else self.groups[indices]
        return replace(self, images=self.images[indices], labels=self.labels[indices], groups=groups)

    def batch(
        self, indices: Int[Tensor, " batch"], uniforms: Float[Tensor, "batch draws"] | None = None
    ) -> Batch:
        """The examples `indices` as float images, augmented by `uniforms`.

        Raises:
            ValueError: the augmentation needs uniform numbers and there are none, or not `draws` of them.
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
        if self.standardize:
            return Batch(Standardize()(images), labels, images.clamp(0, 1)[:, None])
        return Batch(images, labels, images[:, None])


@dataclass(frozen=True, eq=False)
class Dataset:
    """A training and a test source, and what to say about them."""

    name: str
    train: Source
    test: Source
    classes: tuple[str, ...]
    #: (channels, height, width) of the network's input, after augmentation.
    image_shape: tuple[int, int, int]
    #: One sentence: where the data come from, and where they deviate from the published set.
    provenance: str
