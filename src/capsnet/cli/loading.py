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
    from capsnet.models import Classifier


@contextmanager
def options_by_name(context: typer.Context) -> Iterator[None]:
    """Errors about a field of a configuration name the option that it came from."""
    try:
        yield
    except CapsnetError as error:
        field = re.match(r"(?:\w+Config: )?(\w+) is ", str(error))
        if field is None or field[1] not in context.params:
            raise
        option = "--" + field[1].replace("_", "-")
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
    if model.config.classes != len(dataset.classes):
        raise CapsnetError(
            f"the model knows {model.config.classes} classes and {dataset.name} has {len(dataset.classes)}; "
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


def check_side(dataset: Dataset, image_size: int | None) -> None:
    """Refuse images that are too small for the network, and photographs whose size nobody chose.

    The network grows with them, to a billion parameters.
    """
    side = max(dataset.image_shape[1:])
    if min(dataset.image_shape[1:]) < SMALLEST_SIDE:
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


def check_names(model: str, loaded: Classifier, dataset: Dataset | ImageFolder) -> None:
    """Refuse a data set whose classes have other names, or another order, than those the model was trained on."""
    from capsnet.inference.prediction import class_names
    from capsnet.models.base import find_pretrained, read_model_config

    if read_model_config(find_pretrained(model)).get("classes") is None:
        return
    for number, (own, other) in enumerate(zip(class_names(model, loaded), dataset.classes, strict=True)):
        if own != shown(str(other)):
            raise CapsnetError(
                f"{dataset.name} calls class {number} {shown(str(other))!r}, and the model was trained to call it "
                f"{own!r}; give the test set the same classes"
            )


def trained_on(model: str) -> str:
    """Name of the data set that a saved model's config.json gives."""
    from capsnet.models.base import find_pretrained, read_model_config

    training = read_model_config(find_pretrained(model)).get("training", {})
    if not isinstance(training, dict) or not isinstance(training.get("data"), str):
        raise CapsnetError(f"{model} does not say what it was trained on; name a test set with --data")
    name: str = training["data"]
    return name


def write_the_report(
    folder: Path, dataset: Dataset, model: Classifier, evaluation: Evaluation | None = None
) -> None:
    """Write a run's page and say where it is."""
    from capsnet.report import write_report

    out.print(f"report     {shown(write_report(folder, dataset, model, evaluation))}")
