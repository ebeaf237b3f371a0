"""Load images from one NumPy archive with the arrays of MedMNIST."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from capsnet._support.errors import CapsnetError, shown
from capsnet.data.arrays import held_out, image_tensor, label_tensor, numbers_or_text
from capsnet.data.dataset import Dataset, Examples, Source
from capsnet.data.multi_label import MultiLabel
from capsnet.data.npz import read_npz

#: Names of the parts in the file, and what each is used for.
PARTS = {"train": "training", "val": "validation", "test": "test"}


def load_npz(path: Path | str) -> Dataset:
    """Load an archive with train_images, train_labels, test_images, test_labels, and perhaps val_….

    Images are (n, height, width) or (n, height, width, 3), from 0 to 255. Labels are class numbers, (n,) or (n, 1); or
    0 and 1 for each class, (n, classes), if an image may show several. Validation images are not trained on. Without
    test images a fifth of the training images is held out. An array class_names may name the classes.

    Raises:
        CapsnetError: the file is missing, damaged or too large, lacks an array, or an array has a wrong shape or type.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise CapsnetError(f"{shown(file)}: there is no such file; check the path")
    name = f"npz:{shown(file)}"
    arrays = read_npz(file)
    if missing := [key for key in ("train_images", "train_labels") if key not in arrays]:
        found = ", ".join(map(shown, sorted(arrays))) or "no arrays"
        raise CapsnetError(
            f"{shown(file)} has no {missing[0]}; it must hold train_images, train_labels, test_images and test_labels, "
            f"as MedMNIST's files do, and holds {found[:200]}"
        )
    names = (
        tuple(shown(str(text)) for text in arrays["class_names"].ravel()) if "class_names" in arrays else None
    )
    return from_parts(
        name, {part: _part(arrays, part, file) for part in PARTS if f"{part}_images" in arrays}, names
    )


def from_parts(
    name: str,
    parts: dict[str, tuple[Any, NDArray[Any]]],
    class_names: tuple[str, ...] | None,
    about: str = "",
) -> Dataset:
    """Make a data set from the images and labels of each part.

    Args:
        name: of the data set.
        parts: "train", and perhaps "val" and "test", each with images and labels. The labels are numbers or names, or
            0 and 1 for each class.
        class_names: in the order of the numbers; None: the sorted labels of all parts, or the columns' numbers.
        about: more about its origin, for the provenance.

    Raises:
        CapsnetError: as `load_npz`.
    """
    parts = {
        part: (images, _whole(numbers_or_text(labels, f"{name}: {part} labels")))
        for part, (images, labels) in parts.items()
    }
    several, named = parts["train"][1].ndim == 2, class_names is not None
    if len({labels.ndim for _, labels in parts.values()}) > 1:
        shapes = ", ".join(f"{part} {labels.shape}" for part, (_, labels) in parts.items())
        raise CapsnetError(
            f"{name}: the labels of the parts have different shapes: {shapes}; give all the same columns"
        )
    if class_names is None and not several:
        values = np.concatenate([labels for _, labels in parts.values()])
        class_names = tuple(str(value) for value in np.unique(values))
    sources: dict[str, Source] = {}
    for part, (images, labels) in parts.items():
        pixels = image_tensor(images, f"{name}: {part} images")
        if len(pixels) != len(labels):
            raise CapsnetError(
                f"{name}: {len(pixels)} {part} images and {len(labels)} labels; give one for each image"
            )
        if several:
            sources[part] = MultiLabel(pixels, _flags(labels, f"{name}: {part} labels"))
        else:
            about_labels = f"{name}: {part} labels"
            numbers, _ = label_tensor(labels, class_names, about_labels, by_name=not named)
            sources[part] = Examples(pixels, numbers)
    if several:
        class_names = class_names or tuple(str(number) for number in range(parts["train"][1].shape[1]))
    assert class_names is not None
    split = "; ".join(f"{len(source):,} images for {PARTS[part]}" for part, source in sources.items())
    train = sources["train"]
    assert isinstance(train, Examples | MultiLabel)
    if "test" not in sources:
        strata = train.labels if isinstance(train, Examples) else torch.zeros(len(train), dtype=torch.int64)
        chosen = held_out(strata, share=0.2, seed=0)
        sources["test"], sources["train"] = (
            train.subset(which.nonzero()[:, 0]) for which in (chosen, ~chosen)
        )
        split += f", {len(sources['test']):,} of them held out for testing"
    channels, height, width = train.images.shape[1:]
    _check_parts(name, sources, (channels, height, width), class_names)
    return Dataset(
        name,
        sources["train"],
        sources["test"],
        class_names,
        (channels, height, width),
        f"{name}{about}: {split}.",
        validation=sources.get("val"),
    )


def _part(arrays: dict[str, NDArray[Any]], part: str, file: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    if f"{part}_labels" not in arrays:
        raise CapsnetError(f"{shown(file)} has {part}_images and no {part}_labels")
    labels = arrays[f"{part}_labels"]
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    labels = _whole(labels)
    if labels.dtype.kind == "f":
        raise CapsnetError(
            f"{shown(file)}: {part}_labels must be whole numbers; give a class number for each image"
        )
    if labels.ndim not in (1, 2):
        raise CapsnetError(
            f"{shown(file)}: {part}_labels have shape {labels.shape}; give (n,) or (n, classes)"
        )
    return arrays[f"{part}_images"], labels


def _whole(labels: NDArray[Any]) -> NDArray[Any]:
    """Return bool and whole floats as integers, so that names and labels are written alike."""
    whole = labels.dtype.kind == "f" and np.isfinite(labels).all() and (labels == np.rint(labels)).all()
    return labels.astype(np.int64) if whole or labels.dtype.kind == "b" else labels


def _flags(labels: NDArray[Any], name: str) -> torch.Tensor:
    if labels.ndim != 2 or labels.shape[1] < 2 or not np.isin(labels, (0, 1)).all():
        raise CapsnetError(
            f"{name} have shape {labels.shape}; they must be 0 and 1 in a column for each class"
        )
    return torch.from_numpy(labels.astype(bool))


def _check_parts(
    name: str, sources: dict[str, Source], image_shape: tuple[int, int, int], class_names: tuple[str, ...]
) -> None:
    classes = len(class_names)
    for part, source in sources.items():
        assert isinstance(source, Examples | MultiLabel)
        shape = tuple(source.images.shape[1:])
        if shape != image_shape:
            raise CapsnetError(f"{name}: the {part} images are {shape} and the train images {image_shape}")
        if isinstance(source, MultiLabel) and source.present.shape[1] != classes:
            columns = source.present.shape[1]
            raise CapsnetError(f"{name}: the {part} labels have {columns} columns for {classes} classes")
    known = _present(sources["train"], classes)
    for part, source in sources.items():
        if len(unknown := (_present(source, classes) & ~known).nonzero()):
            raise CapsnetError(
                f"{name}: class {shown(class_names[int(unknown[0])])} has {PARTS[part]} images and no training "
                "images; add some, or remove the class"
            )


def _present(source: Source, classes: int) -> torch.Tensor:
    """Return for each class whether an image shows it."""
    if isinstance(source, MultiLabel):
        return source.present.any(dim=0)
    assert isinstance(source, Examples)
    return source.labels.bincount(minlength=classes) > 0
