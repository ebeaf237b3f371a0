"""What lies where in a folder of images with one directory per class, however many images there are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Literal

from capsnet._support.errors import CapsnetError, shown
from capsnet.data.listing import Entry, entries_in

Half = Literal["train", "test"]

#: Places of images, by their names, lie between 0 and this.
PLACES = 2**64
#: An image whose place is below is held out for testing.
HELD_OUT = PLACES // 5

LAYOUT = "it must hold one directory of images per class"


@dataclass(frozen=True, eq=False)
class Layout:
    """The classes of a folder, and which of its images are for training and which for testing.

    Files are found anew each time they are asked for: in memory are the names of
    `capsnet.data.listing.NAMES_AT_ONCE` of them.
    """

    root: Path
    #: The classes' directories, sorted; a class's number is its place here.
    class_names: tuple[str, ...]
    #: For each class, the place below which its images are held out for testing; None: train/ and test/ are there.
    held_out: tuple[int, ...] | None

    @property
    def split(self) -> str:
        """How training and testing images are told apart."""
        if self.held_out is None:
            return "split as found in train/ and test/"
        return "about a fifth of each class, chosen by the files' names, held out for testing"

    def files(self, half: Half) -> Iterator[tuple[Path, int]]:
        """(image file, number of its class), in the order of the classes and of the names within each."""
        for label, name in enumerate(self.class_names):
            directory = self.root / name if self.held_out else self.root / half / name
            for entry in _visible(directory):
                if self.held_out is None or half == self._half(label, entry.name):
                    yield directory / entry.name, label

    def _half(self, label: int, file: str) -> Half:
        assert self.held_out is not None
        return "test" if place(self.class_names[label], file) < self.held_out[label] else "train"


def place(name: str, file: str) -> int:
    """A number that an image has for ever, whatever lies beside it, as if drawn from 0 … PLACES − 1.

    Args:
        name: its class.
        file: its name in the class's directory.
    """
    return int.from_bytes(blake2b(os.fsencode(f"{name}/{file}"), digest_size=8).digest(), "big")


def find_layout(root: Path) -> Layout:
    """Look at the names in ROOT/<class>/<image>, or ROOT/train/<class>/<image> and ROOT/test/<class>/<image>.

    Without train/ and test/, about a fifth of the images of each class is held out for testing, and at least one. An
    image's own name decides, so that it stays on its side when others are added or removed, and no older model is
    tested on what it was trained on (but for classes so small that all of them, or none, would be held out). Hidden
    files and directories are ignored.

    Raises:
        CapsnetError: too few classes or images, a link that leaves the folder, something that is no file.
    """
    if not root.is_dir():
        raise CapsnetError(f"{shown(root)}: is not a directory; {LAYOUT}")
    subfolders = {entry.name for entry in _visible(root) if _is_directory(root, entry)}
    if not {"train", "test"} <= subfolders:
        found = _find_images(root, root)
        return Layout(
            root, tuple(found), tuple(_hold_out(images, root / name) for name, images in found.items())
        )
    if extra := sorted(subfolders - {"train", "test"}):
        raise CapsnetError(
            f"{shown(root / extra[0])}: neither train/ nor test/, which are there; move it away"
        )
    train, test = _find_images(root / "train", root), _find_images(root / "test", root)
    if differing := sorted(train.keys() ^ test.keys()):
        raise CapsnetError(
            f"{shown(root)}: class {shown(differing[0])} is in one of train/ and test/ only; add it to both"
        )
    return Layout(root, tuple(train), None)


def _visible(directory: Path) -> Iterator[Entry]:
    return (entry for entry in entries_in(directory) if not entry.name.startswith("."))


def _is_directory(parent: Path, entry: Entry) -> bool:
    return entry.kind == "directory" or (entry.kind == "link" and (parent / entry.name).is_dir())


@dataclass
class _Images:
    """How many images a class has, and the ends of their places."""

    count: int = 0
    first: int = PLACES
    last: int = 0

    def add(self, at: int) -> None:
        self.count += 1
        self.first, self.last = min(self.first, at), max(self.last, at)


def _find_images(directory: Path, root: Path) -> dict[str, _Images]:
    """Class → its images; the classes sorted by name."""
    inside = root.resolve()

    def stays_inside(path: Path) -> None:
        if not path.resolve().is_relative_to(inside):
            raise CapsnetError(f"{shown(path)}: is a link out of {shown(root)}; put the file itself there")

    found: dict[str, _Images] = {}
    stays_inside(directory)
    for entry in _visible(directory):
        folder = directory / entry.name
        if entry.kind == "link":  # all else lies where its directory lies
            stays_inside(folder)
        if not _is_directory(directory, entry):
            continue
        images = _Images()
        for image in _visible(folder):
            file = folder / image.name
            if image.kind == "link":
                stays_inside(file)
            if image.kind != "file" and not file.is_file():
                fault = "a directory inside a class" if file.is_dir() else "not a file"
                raise CapsnetError(
                    f"{shown(file)}: is {fault}; images must lie directly in the class's directory"
                )
            images.add(place(entry.name, image.name))
        if not images.count:
            raise CapsnetError(f"{shown(folder)}: has no images; add some, or delete the directory")
        found[entry.name] = images
    if len(found) < 2:
        there = f"only {shown(next(iter(found)))}" if found else "none"
        raise CapsnetError(f"{shown(directory)}: at least two classes are needed, there is {there}; {LAYOUT}")
    return found


def _hold_out(images: _Images, directory: Path) -> int:
    """The place below which images are held out: `HELD_OUT`, moved where one side would be empty."""
    if images.count < 2:
        raise CapsnetError(
            f"{shown(directory)}: has one image; at least two are needed, one to train and one to test"
        )
    return min(max(HELD_OUT, images.first + 1), images.last)
