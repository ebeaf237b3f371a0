"""Images that show any number of classes, also none."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from capsnet.data.augmentation import Augmentation
from capsnet.data.dataset import Batch, Examples


@dataclass(frozen=True, eq=False)
class MultiLabel:
    """Images with a yes or no for every class, all of them on one device.

    The labels of a batch have a column for each class: its number, or -1 where the class is missing.

    Args:
        images: pixels 0 … 255, shape (examples, channels, height, width).
        present: which classes each image shows, shape (examples, classes).
        augment: the augmentation of a batch's images. None: no augmentation.

    Raises:
        ValueError: the numbers of images and rows of `present` differ, or `present` is not bool.
    """

    images: UInt8[Tensor, "examples channels height width"]
    present: Bool[Tensor, "examples classes"]
    augment: Augmentation | None = None

    def __post_init__(self) -> None:
        if (
            self.present.dtype != torch.bool
            or self.present.ndim != 2
            or len(self.images) != len(self.present)
        ):
            raise ValueError(
                f"{len(self.images)} images and {self.present.dtype} labels of shape {tuple(self.present.shape)}; "
                "they must be torch.bool of shape (examples, classes)"
            )

    def __len__(self) -> int:
        return len(self.present)

    @property
    def draws(self) -> int:
        """Return the count of uniform numbers in [0, 1) per example."""
        return self.augment.draws if self.augment else 0

    def to(self, device: torch.device | str) -> MultiLabel:
        """Return the same examples on `device`."""
        return replace(self, images=self.images.to(device), present=self.present.to(device))

    def subset(self, indices: Int[Tensor, " chosen"]) -> MultiLabel:
        """Return the examples `indices`, in that order, with the same augmentation."""
        return replace(self, images=self.images[indices], present=self.present[indices])

    def batch(
        self, indices: Int[Tensor, " batch"], uniforms: Float[Tensor, "batch draws"] | None = None
    ) -> Batch:
        """Return the examples `indices` as float images, augmented by `uniforms`.

        The first original is the image and the others are black: which part of the image belongs to which class is
        unknown.
        """
        unnamed = torch.zeros(len(self), dtype=torch.int64, device=self.images.device)
        images = Examples(self.images, unnamed, self.augment).batch(indices, uniforms).images
        present = self.present.index_select(0, indices)
        classes = present.shape[1]
        numbers = torch.arange(classes, device=present.device)
        originals = images.new_zeros(len(images), classes, *images.shape[1:])
        originals[:, 0] = images.clamp(0, 1)
        return Batch(images, torch.where(present, numbers, -1), originals)
