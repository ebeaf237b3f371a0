"""Load the data and models of a command, and check that they fit together."""

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
    """Replace a field's name by its option in error messages."""
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
    """Load a data set by its name on the command line."""
    from capsnet.data import load

    return load(name, data_dir, image_size=image_size)


def absolute(data: str) -> str:
    """Make the path of own data absolute, so that a run can be resumed from any directory."""
    kind, _, rest = data.partition(":")
    path, question, options = rest.partition("?") if kind == "hf" else (rest, "", "")
    if not path or kind not in ("folder", "npz", "hf") or (kind == "hf" and not Path(path).exists()):
        return data
    return f"{kind}:{Path(path).expanduser().resolve()}{question}{options}"


def side(model: Classifier) -> int | None:
    """Return the --image-size that a model needs; None if its images are not square."""
    _, height, width = model.config.image_shape
    return height if height == width else None


def load_for(model: Classifier, name: str, data_dir: Path | None) -> Dataset:
    """Load a data set at the size of a model's images. Raises if it does not fit the model."""
    dataset = load_data(name, data_dir, side(model) if name.startswith(("folder:", "hf:")) else None)
    check_fit(model, dataset)
    return dataset


def check_fit(model: Classifier, dataset: Dataset | ImageFolder) -> None:
    """Raise if the model has another number of classes or another image size."""
    if model.config.num_classes != len(dataset.class_names):
        raise CapsnetError(
            f"the model has {model.config.num_classes} classes and {dataset.name} has {len(dataset.class_names)}; "
            "choose the --data it was trained on"
        )
    if tuple(model.config.image_shape) != tuple(dataset.image_shape):
        raise CapsnetError(
            f"the model takes images of {tuple(model.config.image_shape)} (channels, height, width) and "
            f"{dataset.name} has {tuple(dataset.image_shape)}; choose the --data it was trained on"
        )


#: Larger folder images need an explicit --image-size.
LARGEST_SIDE = 128

#: Ratio of the largest to the smallest class from which on `capsnet train` prints a note.
IMBALANCED = 3

#: Smallest image for two 9×9 convolutions, Conv1 and the primary capsules.
SMALLEST_SIDE = 17


def check_side(dataset: Dataset, image_size: int | None, smallest: int = SMALLEST_SIDE) -> None:
    """Raise if images are too small, or large without --image-size.

    The number of parameters grows with the image area, up to a billion for photographs.
    """
    side = max(dataset.image_shape[1:])
    if min(dataset.image_shape[1:]) < smallest:
        _, height, width = dataset.image_shape
        raise CapsnetError(
            f"{dataset.name}: images of {height}×{width} are too small for two 9×9 convolutions; enlarge them, for "
            "example with --image-size 28"
        )
    if dataset.name.startswith(("folder:", "hf:")) and image_size is None and side > LARGEST_SIDE:
        _, height, width = dataset.image_shape
        raise CapsnetError(
            f"{dataset.name}: the first image has {height}×{width} pixels, which needs a very large network; choose "
            f"a smaller size, for example --image-size 32 (or {side} to keep it)"
        )


def check_shift(shift: int, dataset: Dataset) -> None:
    """Raise if a shift may move an image completely out of its frame."""
    side = min(dataset.image_shape[1:])
    if shift >= side:
        raise CapsnetError(f"--shift {shift}: images of {side} pixels may be shifted by at most {side - 1}")


def imbalance(dataset: Dataset) -> str:
    """Return a note about classes of very different sizes in the training set; "" if there are none."""
    from capsnet.data.dataset import Examples
    from capsnet.data.multi_label import MultiLabel

    if isinstance(dataset.train, MultiLabel):
        counts = dataset.train.present.sum(dim=0)
    elif isinstance(dataset.train, Examples):
        counts = dataset.train.labels.bincount(minlength=len(dataset.class_names))
    else:
        return ""
    most, least = int(counts.argmax()), int(counts.argmin())
    if counts[most] < IMBALANCED * counts[least]:
        return ""
    sizes = " and ".join(
        f"{int(counts[number]):,} of {shown(dataset.class_names[number])!r}" for number in (most, least)
    )
    remedy = "" if isinstance(dataset.train, MultiLabel) else ", and try --class-weights balanced"
    return f"the classes are imbalanced: {sizes}; look at the balanced accuracy{remedy}"


def check_names(model: Classifier, dataset: Dataset | ImageFolder) -> None:
    """Raise if the data set's class names or their order differ from the model's."""
    if model.config.class_names is None:
        return
    for number, (own, other) in enumerate(zip(model.class_names, dataset.class_names, strict=True)):
        if own != shown(str(other)):
            raise CapsnetError(
                f"class {number} is {shown(str(other))!r} in {dataset.name}, but {own!r} in the model; "
                "give the test set the same classes"
            )


def trained_on(saved: SavedModel) -> str:
    """Return the name of the data set that a saved model was trained on."""
    if saved.data is None:
        raise CapsnetError(
            f"{shown(saved.folder)} does not name its training data; choose a test set with --data"
        )
    return saved.data


def write_the_report(
    folder: Path, dataset: Dataset, model: Classifier, evaluation: Evaluation | None = None
) -> None:
    """Write a run's report page and print its path."""
    from capsnet.report import write_report

    out.print(f"report     {shown(write_report(folder, dataset, model, evaluation))}")
