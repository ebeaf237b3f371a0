"""Images of objects with the camera's viewpoint."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from jaxtyping import Bool, Int, UInt8
from torch import Tensor

from capsnet.data.augmentation import CenterCrop, RandomCrop
from capsnet.data.dataset import Examples

CATEGORIES = ("animal", "human", "airplane", "truck", "car")
#: Instances to train on and to test on, the same for each category, as smallNORB has them.
TRAIN_INSTANCES, TEST_INSTANCES = (4, 6, 7, 8, 9), (0, 1, 2, 3, 5)
CROP = 32


@dataclass(frozen=True, eq=False)
class Views:
    """Images with viewpoint and lighting. Angles are in degrees; None if unknown."""

    images: UInt8[Tensor, "views channels height width"]
    category: Int[Tensor, " views"]
    instance: Int[Tensor, " views"]
    """Number within the category; negative if unknown."""
    azimuth: Int[Tensor, " views"] | None = None
    elevation: Int[Tensor, " views"] | None = None
    lighting: Int[Tensor, " views"] | None = None

    def __len__(self) -> int:
        return len(self.category)

    def where(self, mask: Bool[Tensor, " views"]) -> Views:
        """Return the views for which `mask` is true."""
        values: dict[str, Tensor | None] = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{name: value[mask] for name, value in values.items() if value is not None})

    @property
    def toys(self) -> Int[Tensor, " views"] | None:
        """Return the group id of each image's toy, or None if the instances are unknown."""
        if (self.instance < 0).any():
            return None
        return self.category + len(CATEGORIES) * self.instance

    def training(self) -> Examples:
        """Return random crops of 32×32, labelled with the category, grouped by toy."""
        return Examples(self.images, self.category, augment=RandomCrop(CROP), groups=self.toys)

    def testing(self) -> Examples:
        """Return the central 32×32 pixels, labelled with the category, grouped by toy."""
        return Examples(self.images, self.category, augment=CenterCrop(CROP), groups=self.toys)
