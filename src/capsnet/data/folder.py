"""A folder of images, one directory per class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from capsnet.data.dataset import Dataset, Examples
from capsnet.data.images import check, read_image
from capsnet.errors import CapsnetError, shown

#: All pixels stay in memory; a first image of 12 megapixels would ask for all others at that size.
MAX_BYTES = 2**33
LAYOUT = "it must hold one directory of images per class"


def load_folder(path: Path | str, image_size: int | None = None) -> Dataset:
    """Read PATH/<class>/<image>, or PATH/train/<class>/<image> and PATH/test/<class>/<image>.

    Without train/ and test/, a fifth of the images of each class, always the same, is held out for testing.
    Hidden files and directories are ignored; classes are in the order of their sorted names; the set is in
    colour if any image is.

    Args:
        path: the folder.
        image_size: height and width of the network's input. None: the size of the first image.

    Raises:
        CapsnetError: too few classes or images, a file that is no image, a link that leaves the folder.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise CapsnetError(f"{shown(root)}: is not a directory; {LAYOUT}")
    subfolders = {entry.name for entry in _entries(root) if entry.is_dir()}
    if {"train", "test"} <= subfolders:
        if extra := sorted(subfolders - {"train", "test"}):
            raise CapsnetError(
                f"{shown(root / extra[0])}: neither train/ nor test/, which are there; move it away"
            )
        train, test = _files(root / "train", root), _files(root / "test", root)
        if differing := sorted(train.keys() ^ test.keys()):
            raise CapsnetError(
                f"{shown(root)}: class {shown(differing[0])} is in one of train/ and test/ only; "
                "add it to both"
            )
        split = "split as found in train/ and test/"
    else:
        train, test = _split(_files(root, root), root)
        split = "a fifth of each class held out for testing"

    headers = [check(file) for files in (*train.values(), *test.values()) for file in files]
    first = headers[0]
    height, width = (first.height, first.width) if image_size is None else (image_size, image_size)
    shape = (3 if any(header.colour for header in headers) else 1, height, width)
    if len(headers) * np.prod(shape) > MAX_BYTES:
        raise CapsnetError(
            f"{shown(root)}: {len(headers):,} images of {width}×{height} pixels need more than "
            f"{MAX_BYTES // 2**30} GiB; give a smaller --image-size"
        )
    sizes = {(header.height, header.width) for header in headers}
    resized = "" if sizes == {(height, width)} else f", resized to {width}×{height}"
    return Dataset(
        f"folder:{shown(root)}",
        _examples(train, shape),
        _examples(test, shape),
        tuple(shown(name) for name in train),
        shape,
        f"{len(headers):,} images of {len(train)} classes from {shown(root)}{resized}; {split}.",
    )


def _entries(directory: Path) -> list[Path]:
    try:
        return sorted((e for e in directory.iterdir() if not e.name.startswith(".")), key=lambda e: e.name)
    except OSError as error:
        raise CapsnetError(
            f"{shown(directory)}: cannot be read ({error.strerror}); check its rights"
        ) from error


def _files(directory: Path, root: Path) -> dict[str, list[Path]]:
    """Class name → its image files, both sorted."""
    inside = root.resolve()

    def stays_inside(entry: Path) -> None:
        if not entry.resolve().is_relative_to(inside):
            raise CapsnetError(f"{shown(entry)}: is a link out of {shown(root)}; put the file itself there")

    classes: dict[str, list[Path]] = {}
    stays_inside(directory)
    for folder in _entries(directory):
        stays_inside(folder)
        if not folder.is_dir():
            continue
        classes[folder.name] = files = _entries(folder)
        for file in files:
            stays_inside(file)
            if not file.is_file():
                fault = "a directory inside a class" if file.is_dir() else "not a file"
                raise CapsnetError(
                    f"{shown(file)}: is {fault}; images must lie directly in the class's directory"
                )
        if not files:
            raise CapsnetError(f"{shown(folder)}: has no images; add some, or delete the directory")
    if len(classes) < 2:
        found = f"only {shown(next(iter(classes)))}" if classes else "none"
        raise CapsnetError(f"{shown(directory)}: at least two classes are needed, there is {found}; {LAYOUT}")
    return classes


def _split(classes: dict[str, list[Path]], root: Path) -> tuple[dict[str, list[Path]], dict[str, list[Path]]]:
    # RandomState's streams are frozen: the same folder is split in the same way for ever.
    random = np.random.RandomState(0)
    train, test = {}, {}
    for name, files in classes.items():
        if len(files) < 2:
            raise CapsnetError(
                f"{shown(root / name)}: has one image; at least two are needed, one to train and one to test"
            )
        order = random.permutation(len(files))
        held_out = max(1, round(len(files) / 5))
        test[name] = [files[i] for i in sorted(order[:held_out])]
        train[name] = [files[i] for i in sorted(order[held_out:])]
    return train, test


def _examples(classes: dict[str, list[Path]], shape: tuple[int, int, int]) -> Examples:
    images = [read_image(file, shape) for files in classes.values() for file in files]
    labels = [label for label, files in enumerate(classes.values()) for _ in files]
    return Examples(torch.stack(images), torch.tensor(labels))
