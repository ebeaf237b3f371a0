"""Data and models as commands are given them, and whether they fit each other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from capsnet._support.errors import CapsnetError, shown
from capsnet.cli.console import out

if TYPE_CHECKING:
    from capsnet.data import Dataset
    from capsnet.data.folder import ImageFolder
    from capsnet.inference.evaluation import Evaluation
    from capsnet.models import Classifier, SavedModel


#: Options that set a field of a model's configuration, and the field.
MODEL_FIELDS = {
    "iterations": "routing_iterations",
    "stem_channels": "stem_channels",
    "primary_types": "primary_types",
    "reconstruction": "decoder",
}


@contextmanager
def options_by_name(context: typer.Context) -> Iterator[None]:
    """Name the option in errors about the field that it sets."""
    options = {field: option for option, field in MODEL_FIELDS.items()}
    try:
        yield
    except CapsnetError as error:
        field = re.match(r"(?:\w+Config: )?(\w+) is ", str(error))
        name = options.get(field[1], field[1]) if field else ""
        if field is None or name not in context.params:
            raise
        option = "--" + name.replace("_", "-")
        raise CapsnetError(f"{option}{str(error)[field.end(1) :]}") from error


def load_data(name: str, data_dir: Path | None, image_size: int | None) -> Dataset:
    """A data set by its name on the command line."""
    from capsnet.data import load

    return load(name, data_dir, image_size=image_size)


def absolute(data: str) -> str:
    """A folder named relative to where the command was given must be found from elsewhere when resuming."""
    kind, _, path = data.partition(":")
    return f"folder:{Path(path).expanduser().resolve()}" if kind == "folder" and path else data


def side(model: Classifier) -> int | None:
    """What --image-size must have been for a folder: its side if the images are square."""
    _, height, width = model.config.image_shape
    return height if height == width else None


def check_fit(model: Classifier, dataset: Dataset | ImageFolder) -> None:
    """Refuse a data set whose classes or image size are not the model's."""
    if model.config.num_classes != len(dataset.class_names):
        raise CapsnetError(
            f"the model knows {model.config.num_classes} classes and {dataset.name} has {len(dataset.class_names)}; "
            "choose the --data it was trained on"
        )
    if tuple(model.config.image_shape) != tuple(dataset.image_shape):
        raise CapsnetError(
            f"the model takes images of {tuple(model.config.image_shape)} (channels, height, width) and "
            f"{dataset.name} has {tuple(dataset.image_shape)}; choose the --data it was trained on"
        )


#: A larger image of one's own has to be made smaller, or its network be asked for in words.
LARGEST_SIDE = 128


#: Conv1 and the primary capsules, 9×9 each, need so many pixels.
SMALLEST_SIDE = 17


def check_side(dataset: Dataset, image_size: int | None, smallest: int = SMALLEST_SIDE) -> None:
    """Refuse images that are too small for the network, and photographs whose size nobody chose.

    The network grows with them, to a billion parameters.
    """
    side = max(dataset.image_shape[1:])
    if min(dataset.image_shape[1:]) < smallest:
        _, height, width = dataset.image_shape
        raise CapsnetError(
            f"{dataset.name}: images of {height}×{width} are too small for two 9×9 convolutions; enlarge them, for "
            "instance with --image-size 28"
        )
    if dataset.name.startswith("folder:") and image_size is None and side > LARGEST_SIDE:
        _, height, width = dataset.image_shape
        raise CapsnetError(
            f"{dataset.name}: its first image has {height}×{width} pixels, which makes a very large network; choose "
            f"what images are stretched to, for instance --image-size 32 (or {side}, if it is meant)"
        )


def check_shift(shift: int, dataset: Dataset) -> None:
    """Refuse shifts that may push all of an image out of sight."""
    side = min(dataset.image_shape[1:])
    if shift >= side:
        raise CapsnetError(f"--shift {shift}: images of {side} pixels may be shifted by at most {side - 1}")


def check_names(model: Classifier, dataset: Dataset | ImageFolder) -> None:
    """Refuse a data set whose classes have other names, or another order, than the model was trained on."""
    if model.config.class_names is None:
        return
    for number, (own, other) in enumerate(zip(model.class_names, dataset.class_names, strict=True)):
        if own != shown(str(other)):
            raise CapsnetError(
                f"{dataset.name} calls class {number} {shown(str(other))!r}, and the model was trained to call it "
                f"{own!r}; give the test set the same classes"
            )


def trained_on(saved: SavedModel) -> str:
    """Return the name of the data set that a saved model was trained on."""
    if saved.data is None:
        raise CapsnetError(
            f"{shown(saved.folder)} does not say what it was trained on; name a test set with --data"
        )
    return saved.data


def write_the_report(
    folder: Path, dataset: Dataset, model: Classifier, evaluation: Evaluation | None = None
) -> None:
    """Write a run's page and say where it is."""
    from capsnet.report import write_report

    out.print(f"report     {shown(write_report(folder, dataset, model, evaluation))}")
