"""Splits that test on new viewpoints of objects (Hinton, Sabour, Frosst 2018)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import torch

from capsnet._support.errors import CapsnetError
from capsnet.data.dataset import Dataset, Examples
from capsnet.data.registry import register
from capsnet.data.smallnorb import load_views
from capsnet.data.toys.rendering import rendered_views
from capsnet.data.views import CATEGORIES, CROP, Views

Axis = Literal["azimuth", "elevation"]
#: Training viewpoints in degrees. All others are new at test time.
FAMILIAR: Mapping[Axis, tuple[int, ...]] = {
    "azimuth": (300, 320, 340, 0, 20, 40),
    "elevation": (30, 35, 40),
}


class Viewpoints(NamedTuple):
    """Training examples, and test examples from familiar and from new viewpoints."""

    train: Examples
    familiar: Examples
    novel: Examples


def viewpoint_split(train: Views, test: Views, axis: Axis, name: str) -> Viewpoints:
    """Split views by azimuth or elevation into familiar and new viewpoints.

    Args:
        train: views of the training instances.
        test: views of the test instances.
        axis: which angle is new at test time.
        name: the data set's name, for the error message.

    Raises:
        CapsnetError: the views have no viewpoint labels.
    """
    angles = [getattr(part, axis) for part in (train, test)]
    if any(angle is None for angle in angles):
        raise CapsnetError(
            f"{name}: these files have no {axis}; put the published -info.mat files beside the "
            f"-dat.mat and -cat.mat, or use the rendered set objects3d-{axis}"
        )
    in_train, in_test = (torch.isin(angle, torch.tensor(FAMILIAR[axis])) for angle in angles)
    return Viewpoints(
        train.where(in_train).training(), test.where(in_test).testing(), test.where(~in_test).testing()
    )


def views(name: str, data_dir: Path | str | None = None) -> tuple[Views, Views, str]:
    """Load training views, test views and provenance of `smallnorb`, `objects3d` or `objects3d200`.

    Raises:
        CapsnetError: the files of smallNORB are missing or damaged.
    """
    return load_views(data_dir) if name == "smallnorb" else rendered_views(name)


@register(
    "smallnorb",
    "smallnorb-azimuth",
    "smallnorb-elevation",
    "objects3d",
    "objects3d-azimuth",
    "objects3d-elevation",
    "objects3d200",
    "objects3d200-azimuth",
    "objects3d200-elevation",
)
def load(name: str, data_dir: Path | str | None = None, download: bool = True) -> Dataset:  # noqa: ARG001
    """Load `smallnorb`, `objects3d` or `objects3d200`.

    With `-azimuth` or `-elevation` in the name, the test set has only new viewpoints. See `viewpoints` for a test set
    of familiar ones to compare with. Nothing is downloaded: smallNORB must be on this machine, and the others are
    rendered.

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
    """Load the three parts of the viewpoint experiment.

    Args:
        name: `smallnorb`, `objects3d` or `objects3d200`.
        axis: the angle that is new at test time.
        data_dir: first place to look for files.

    Raises:
        CapsnetError: as `load`.
    """
    train, test, _ = views(name, data_dir)
    return viewpoint_split(train, test, axis, name)
