"""Objects seen from known viewpoints, and the splits that test on new ones (Hinton, Sabour, Frosst 2018)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Int, UInt8
from torch import Tensor

from capsnet.augment import CenterCrop, RandomCrop
from capsnet.data.dataset import Dataset, Examples
from capsnet.errors import CapsnetError

CATEGORIES = ("animal", "human", "airplane", "truck", "car")
#: Instances to train on and to test on, the same for each category, as smallNORB has them.
TRAIN_INSTANCES, TEST_INSTANCES = (4, 6, 7, 8, 9), (0, 1, 2, 3, 5)
CROP = 32

Axis = Literal["azimuth", "elevation"]
#: The viewpoints to train on, in degrees; all others are new.
FAMILIAR: Mapping[Axis, tuple[int, ...]] = {
    "azimuth": (300, 320, 340, 0, 20, 40),
    "elevation": (30, 35, 40),
}


@dataclass(frozen=True, eq=False)
class Views:
    """Images, and what is known of how each was taken. Angles in degrees; None where the files do not say."""

    images: UInt8[Tensor, "views channels height width"]
    category: Int[Tensor, " views"]
    instance: Int[Tensor, " views"]
    """Number within the category; negative where the files do not say."""
    azimuth: Int[Tensor, " views"] | None = None
    elevation: Int[Tensor, " views"] | None = None
    lighting: Int[Tensor, " views"] | None = None

    def __len__(self) -> int:
        return len(self.category)

    def where(self, mask: Bool[Tensor, " views"]) -> Views:
        """The views for which `mask` is true."""
        values: dict[str, Tensor | None] = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{name: value[mask] for name, value in values.items() if value is not None})

    @property
    def toys(self) -> Int[Tensor, " views"] | None:
        """One number for each toy, that is category and instance; None where the files do not say the instance."""
        if (self.instance < 0).any():
            return None
        return self.category + len(CATEGORIES) * self.instance

    def training(self) -> Examples:
        """Random crops of 32×32, labelled with the category."""
        return Examples(self.images, self.category, augment=RandomCrop(CROP))

    def testing(self) -> Examples:
        """The centre 32×32, labelled with the category, grouped by toy."""
        return Examples(self.images, self.category, augment=CenterCrop(CROP), groups=self.toys)


class Viewpoints(NamedTuple):
    """Train on familiar viewpoints; test other instances from familiar and from new ones."""

    train: Examples
    familiar: Examples
    novel: Examples


def viewpoint_split(train: Views, test: Views, axis: Axis, name: str) -> Viewpoints:
    """Split by azimuth or by elevation.

    Args:
        train: views of the training instances.
        test: views of the test instances.
        axis: which angle is new at test time.
        name: the data set, for the error message.

    Raises:
        CapsnetError: the views do not say from where they were taken.
    """
    angles = [getattr(part, axis) for part in (train, test)]
    if any(angle is None for angle in angles):
        raise CapsnetError(
            f"{name}: these files do not say the {axis}; put the published -info.mat files beside the "
            f"-dat.mat and -cat.mat, or use the rendered set objects3d-{axis}"
        )
    in_train, in_test = (torch.isin(angle, torch.tensor(FAMILIAR[axis])) for angle in angles)
    return Viewpoints(
        train.where(in_train).training(), test.where(in_test).testing(), test.where(~in_test).testing()
    )


def views(name: str, data_dir: Path | str | None = None) -> tuple[Views, Views, str]:
    """Training instances, test instances and provenance of `smallnorb` or `objects3d`.

    Raises:
        CapsnetError: the files of smallNORB are missing or damaged.
    """
    if name == "smallnorb":
        from capsnet.data.smallnorb import load_views

        return load_views(data_dir)
    from capsnet.data.objects import rendered_views

    return rendered_views()


def load(name: str, data_dir: Path | str | None = None, download: bool = True) -> Dataset:  # noqa: ARG001
    """`smallnorb` or `objects3d`, whole, or (`-azimuth`, `-elevation`) tested on the new viewpoints only.

    For the error on familiar viewpoints too, which the new ones are compared with, see `viewpoints`. Nothing is
    downloaded: smallNORB is to be had by hand, and the objects are rendered.

    Raises:
        CapsnetError: the files are missing, damaged, or lack what the split needs.
    """
    base, _, axis = name.partition("-")
    train, test, provenance = views(base, data_dir)
    shape = (train.images.shape[1], CROP, CROP)
    if not axis:
        return Dataset(name, train.training(), test.testing(), CATEGORIES, shape, provenance)
    angle: Axis = "azimuth" if axis == "azimuth" else "elevation"
    split = viewpoint_split(train, test, angle, base)
    provenance = f"{provenance.rstrip('.')}; trained on {angle}s {FAMILIAR[angle]}°, tested on all others."
    return Dataset(name, split.train, split.novel, CATEGORIES, shape, provenance)


def viewpoints(name: str, axis: Axis, data_dir: Path | str | None = None) -> Viewpoints:
    """The three parts of the viewpoint experiment on `smallnorb` or `objects3d`.

    Raises:
        CapsnetError: as `load`.
    """
    train, test, _ = views(name, data_dir)
    return viewpoint_split(train, test, axis, name)
