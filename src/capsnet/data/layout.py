"""What lies where in a folder of images with one directory per class, however many images there are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from capsnet.data.walking import Entry, entries_in
from capsnet.errors import CapsnetError, shown

Half = Literal["train", "test"]

LAYOUT = "it must hold one directory of images per class"


@dataclass(frozen=True, eq=False)
class Layout:
    """The classes of a folder, and which of its images are for training and which for testing.

    Files are found anew each time they are asked for: in memory is a byte for each, if they have to be split, and
    the names of `capsnet.data.walking.NAMES_AT_ONCE` of them.
    """

    root: Path
    #: The classes' directories, sorted; a class's number is its place here.
    classes: tuple[str, ...]
    #: For each class, which of its images, in order, are held out for testing; None: train/ and test/ are there.
    held_out: tuple[NDArray[np.bool_], ...] | None

    @property
    def split(self) -> str:
        """How training and testing images are told apart."""
        if self.held_out is None:
            return "split as found in train/ and test/"
        return "a fifth of each class held out for testing"

    def files(self, half: Half) -> Iterator[tuple[Path, int]]:
        """(image file, number of its class), in the order of the classes and of the names within each.

        Raises:
            CapsnetError: files were added since, so that the split is no longer the same.
        """
        for label, name in enumerate(self.classes):
            directory = self.root / name if self.held_out else self.root / half / name
            chosen = self.held_out[label] == (half == "test") if self.held_out else None
            for number, entry in enumerate(_visible(directory)):
                if chosen is not None and number >= len(chosen):
                    raise CapsnetError(f"{shown(directory)}: files were added while it was read; start again")
                if chosen is None or chosen[number]:
                    yield directory / entry.name, label


def find_layout(root: Path) -> Layout:
    """Look at the names in ROOT/<class>/<image>, or ROOT/train/<class>/<image> and ROOT/test/<class>/<image>.

    Without train/ and test/, a fifth of the images of each class, always the same, is held out for testing.
    Hidden files and directories are ignored.

    Raises:
        CapsnetError: too few classes or images, a link that leaves the folder, something that is no file.
    """
    if not root.is_dir():
        raise CapsnetError(f"{shown(root)}: is not a directory; {LAYOUT}")
    subfolders = {entry.name for entry in _visible(root) if _is_directory(root, entry)}
    if not {"train", "test"} <= subfolders:
        counts = _count_images(root, root)
        return Layout(root, tuple(counts), _hold_out(counts, root))
    if extra := sorted(subfolders - {"train", "test"}):
        raise CapsnetError(
            f"{shown(root / extra[0])}: neither train/ nor test/, which are there; move it away"
        )
    train, test = _count_images(root / "train", root), _count_images(root / "test", root)
    if differing := sorted(train.keys() ^ test.keys()):
        raise CapsnetError(
            f"{shown(root)}: class {shown(differing[0])} is in one of train/ and test/ only; add it to both"
        )
    return Layout(root, tuple(train), None)


def _visible(directory: Path) -> Iterator[Entry]:
    return (entry for entry in entries_in(directory) if not entry.name.startswith("."))


def _is_directory(parent: Path, entry: Entry) -> bool:
    return entry.kind == "directory" or (entry.kind == "link" and (parent / entry.name).is_dir())


def _count_images(directory: Path, root: Path) -> dict[str, int]:
    """Class → how many images it has; the classes sorted by name."""
    inside = root.resolve()

    def stays_inside(path: Path) -> None:
        if not path.resolve().is_relative_to(inside):
            raise CapsnetError(f"{shown(path)}: is a link out of {shown(root)}; put the file itself there")

    counts: dict[str, int] = {}
    stays_inside(directory)
    for entry in _visible(directory):
        folder = directory / entry.name
        if entry.kind == "link":  # all else lies where its directory lies
            stays_inside(folder)
        if not _is_directory(directory, entry):
            continue
        count = 0
        for image in _visible(folder):
            file = folder / image.name
            if image.kind == "link":
                stays_inside(file)
            if image.kind != "file" and not file.is_file():
                fault = "a directory inside a class" if file.is_dir() else "not a file"
                raise CapsnetError(
                    f"{shown(file)}: is {fault}; images must lie directly in the class's directory"
                )
            count += 1
        if not count:
            raise CapsnetError(f"{shown(folder)}: has no images; add some, or delete the directory")
        counts[entry.name] = count
    if len(counts) < 2:
        found = f"only {shown(next(iter(counts)))}" if counts else "none"
        raise CapsnetError(f"{shown(directory)}: at least two classes are needed, there is {found}; {LAYOUT}")
    return counts


def _hold_out(counts: dict[str, int], root: Path) -> tuple[NDArray[np.bool_], ...]:
    # RandomState's streams are frozen: the same folder is split in the same way for ever.
    random = np.random.RandomState(0)
    held_out = []
    for name, count in counts.items():
        if count < 2:
            raise CapsnetError(
                f"{shown(root / name)}: has one image; at least two are needed, one to train and one to test"
            )
        of_class = np.zeros(count, bool)
        of_class[random.permutation(count)[: max(1, round(count / 5))]] = True
        held_out.append(of_class)
    return tuple(held_out)
