"""Find the classes in a folder of images, and split them into training and test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Literal

from capsnet._support.errors import CapsnetError, shown
from capsnet.data.listing import Entry, entries_in

Split = Literal["train", "test"]

#: Name hashes of images are below this.
HASHES = 2**64
#: Images whose name hash is below this form the test split.
HELD_OUT = HASHES // 5

LAYOUT = "it must hold one directory of images per class"


@dataclass(frozen=True, eq=False)
class Layout:
    """The classes of a folder, and its training and test split.

    `files` reads the directories anew each time and holds `capsnet.data.listing.NAMES_AT_ONCE` names in memory.
    """

    root: Path
    #: The classes' directories, sorted. A class's number is its index here.
    class_names: tuple[str, ...]
    #: For each class, the name hash below which images are held out. None: the folder has train/ and test/.
    held_out: tuple[int, ...] | None

    @property
    def about_split(self) -> str:
        """Return a description of how training and test images are split."""
        if self.held_out is None:
            return "split as found in train/ and test/"
        return "about a fifth of each class, chosen by the files' names, held out for testing"

    def files(self, split: Split) -> Iterator[tuple[Path, int]]:
        """Yield (image file, class number) of a split, sorted by class, then by name."""
        for label, name in enumerate(self.class_names):
            directory = self.root / name if self.held_out else self.root / split / name
            for entry in _visible(directory):
                if self.held_out is None or split == self._split_of(label, entry.name):
                    yield directory / entry.name, label

    def _split_of(self, label: int, file: str) -> Split:
        assert self.held_out is not None
        return "test" if name_hash(self.class_names[label], file) < self.held_out[label] else "train"


def name_hash(class_name: str, file: str) -> int:
    """Return the hash of an image's name, from 0 to HASHES − 1.

    It does not depend on other images.

    Args:
        class_name: the image's class.
        file: its file name in the class's directory.
    """
    return int.from_bytes(blake2b(os.fsencode(f"{class_name}/{file}"), digest_size=8).digest(), "big")


def find_layout(root: Path) -> Layout:
    """Find the classes and the split of a folder by reading its file names.

    The images are ROOT/<class>/<image>, or ROOT/train/<class>/<image> and ROOT/test/<class>/<image>. Without train/ and
    test/, about a fifth of the images of each class is held out for testing, and at least one. The split of an image
    depends only on its name. So it does not change when other images are added or removed, and an older model is never
    tested on its training images. (Very small classes are an exception: one image must be on each side.) Hidden files
    and directories are ignored.

    Raises:
        CapsnetError: there are too few classes or images, a link leaves the folder, or an entry is not a file.
    """
    if not root.is_dir():
        raise CapsnetError(f"{shown(root)}: not a directory; {LAYOUT}")
    subfolders = {entry.name for entry in _visible(root) if _is_directory(root, entry)}
    if not {"train", "test"} <= subfolders:
        found = _find_images(root, root)
        return Layout(
            root, tuple(found), tuple(_hold_out(images, root / name) for name, images in found.items())
        )
    if extra := sorted(subfolders - {"train", "test"}):
        raise CapsnetError(f"{shown(root / extra[0])}: unexpected beside train/ and test/; move it away")
    train, test = _find_images(root / "train", root), _find_images(root / "test", root)
    if differing := sorted(train.keys() ^ test.keys()):
        raise CapsnetError(
            f"{shown(root)}: class {shown(differing[0])} is only in one of train/ and test/; add it to both"
        )
    return Layout(root, tuple(train), None)


def _visible(directory: Path) -> Iterator[Entry]:
    return (entry for entry in entries_in(directory) if not entry.name.startswith("."))


def _is_directory(parent: Path, entry: Entry) -> bool:
    return entry.kind == "directory" or (entry.kind == "link" and (parent / entry.name).is_dir())


@dataclass
class _Images:
    """Number of images of a class, and their smallest and largest name hash."""

    count: int = 0
    smallest: int = HASHES
    largest: int = 0

    def add(self, value: int) -> None:
        self.count += 1
        self.smallest, self.largest = min(self.smallest, value), max(self.largest, value)


def _find_images(directory: Path, root: Path) -> dict[str, _Images]:
    """Return class → its images, sorted by class name."""
    inside = root.resolve()

    def stays_inside(path: Path) -> None:
        if not path.resolve().is_relative_to(inside):
            raise CapsnetError(f"{shown(path)}: a link to outside {shown(root)}; put the file itself there")

    found: dict[str, _Images] = {}
    stays_inside(directory)
    for entry in _visible(directory):
        folder = directory / entry.name
        if entry.kind == "link":  # only links can lead out of the folder
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
                    f"{shown(file)}: {fault}; images must be directly in the class's directory"
                )
            images.add(name_hash(entry.name, image.name))
        if not images.count:
            raise CapsnetError(f"{shown(folder)}: has no images; add some, or delete the directory")
        found[entry.name] = images
    if len(found) < 2:
        there = f"only {shown(next(iter(found)))}" if found else "none"
        raise CapsnetError(f"{shown(directory)}: at least two classes are needed, found {there}; {LAYOUT}")
    return found


def _hold_out(images: _Images, directory: Path) -> int:
    """Return the name hash below which images are held out.

    This is `HELD_OUT`, unless one split would be empty.
    """
    if images.count < 2:
        raise CapsnetError(
            f"{shown(directory)}: has one image; it needs at least two, one to train and one to test"
        )
    return min(max(HELD_OUT, images.smallest + 1), images.largest)
