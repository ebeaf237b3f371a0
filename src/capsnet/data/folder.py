"""Load a folder of images with one directory per class."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from capsnet._support.errors import CapsnetError, shown
from capsnet.data.dataset import Dataset, Examples
from capsnet.data.folder_split import Layout, Split, find_layout
from capsnet.data.images import ImageInfo, check, read_image
from capsnet.distributed import WorkerGroup

#: Upper limit, since all pixels are in memory. A first image of 12 megapixels would set this size for all images.
MAX_BYTES = 2**33
#: Files whose headers are read as one work item.
HEADERS_AT_ONCE = 500

#: Image files with their class numbers.
Portion = list[tuple[Path, int]]


@dataclass(frozen=True, eq=False)
class ImageFolder:
    """A folder whose file names and headers were read, but no pixels yet."""

    layout: Layout
    image_shape: tuple[int, int, int]
    """(channels, height, width) that all images are converted to: in colour if any image is."""
    images: int
    resized: bool
    """Whether any image has another size and is resized."""

    @property
    def name(self) -> str:
        """Return its name on the command line."""
        return f"folder:{shown(self.layout.root)}"

    @property
    def class_names(self) -> tuple[str, ...]:
        """Return the names of the classes, each on one line."""
        return tuple(shown(name) for name in self.layout.class_names)

    @property
    def provenance(self) -> str:
        """Return one sentence about the images."""
        _, height, width = self.image_shape
        resized = f", resized to {width}×{height}" if self.resized else ""
        return (
            f"{self.images:,} images of {len(self.class_names)} classes from {shown(self.layout.root)}{resized}; "
            f"{self.layout.about_split}."
        )

    def portions(self, split: Split, size: int) -> Iterator[Portion]:
        """Yield the files of a split, in order, `size` at a time."""
        files = self.layout.files(split)
        return iter(lambda: list(islice(files, size)), [])


def load_folder(path: Path | str, image_size: int | None = None) -> Dataset:
    """Load a folder of images into memory.

    The images are PATH/<class>/<image>, or PATH/train/<class>/<image> and PATH/test/<class>/<image>. Without train/ and
    test/, about a fifth of each class is held out for testing; this depends only on an image's name. Hidden files and
    directories are ignored. Classes are sorted by name. The data set is in colour if any image is.

    Args:
        path: the folder.
        image_size: height and width of the network's input. None: the size of the first image.

    Raises:
        CapsnetError: there are too few classes or images, a file is not an image, a link leaves the folder, or the
            pixels need more than `MAX_BYTES`.
    """
    folder = open_folder(path, image_size)
    assert folder is not None
    _, height, width = folder.image_shape
    if folder.images * np.prod(folder.image_shape) > MAX_BYTES:
        raise CapsnetError(
            f"{shown(folder.layout.root)}: {folder.images:,} images of {width}×{height} pixels need more than "
            f"{MAX_BYTES // 2**30} GiB; give a smaller --image-size"
        )
    train, test = (
        read_portion(folder.layout.files(split), folder.image_shape) for split in ("train", "test")
    )
    return Dataset(folder.name, train, test, folder.class_names, folder.image_shape, folder.provenance)


def open_folder(
    path: Path | str, image_size: int | None = None, workers: WorkerGroup | None = None
) -> ImageFolder | None:
    """Read all file names and image headers of a folder, in constant memory.

    Args:
        path: the folder; see `load_folder`.
        image_size: height and width of the network's input. None: the size of the first image.
        workers: processes that share the work; all of them must make this call. None: this process does all of it.

    Returns:
        The folder in rank 0; None in the other ranks.

    Raises:
        CapsnetError: as `load_folder`; the number of pixels has no limit here.
    """
    is_main = workers is None or workers.is_main
    layout = find_layout(Path(path).expanduser()) if is_main else None
    share: Callable[[Callable[[list[Path]], _Seen], Iterator[list[Path]]], Iterator[_Seen]]
    share = map if workers is None else workers.map
    first: ImageInfo | None = None
    images, colour, resized = 0, False, False
    for seen in share(_look, _headers(layout) if layout else iter(())):
        if seen.fault:
            raise CapsnetError(seen.fault)
        first = first or seen.first
        assert first is not None
        size = (first.height, first.width) if image_size is None else (image_size, image_size)
        images += seen.images
        colour |= seen.colour
        resized |= seen.sizes != {size}
    if layout is None or first is None:
        return None
    height, width = (first.height, first.width) if image_size is None else (image_size, image_size)
    return ImageFolder(layout, (3 if colour else 1, height, width), images, resized)


def read_portion(files: Iterable[tuple[Path, int]], image_shape: tuple[int, int, int]) -> Examples:
    """Read images and convert them to `image_shape`.

    Args:
        files: at least one image file, each with its class number.
        image_shape: (channels, height, width).

    Raises:
        CapsnetError: a file cannot be read as an image.
    """
    images, labels = zip(*((read_image(file, image_shape), label) for file, label in files), strict=True)
    return Examples(torch.stack(images), torch.tensor(labels))


class _Seen(NamedTuple):
    """Summary of the headers of some files."""

    first: ImageInfo | None = None
    images: int = 0
    colour: bool = False
    sizes: frozenset[tuple[int, int]] = frozenset()
    fault: str | None = None
    """The error message about the first file that is not an image."""


def _headers(layout: Layout) -> Iterator[list[Path]]:
    files = (file for split in ("train", "test") for file, _ in layout.files(split))
    return iter(lambda: list(islice(files, HEADERS_AT_ONCE)), [])


def _look(files: list[Path]) -> _Seen:
    try:
        headers = [check(file) for file in files]
    except CapsnetError as error:  # reported by rank 0, in the order of the files
        return _Seen(fault=str(error))
    sizes = frozenset((header.height, header.width) for header in headers)
    return _Seen(headers[0], len(headers), any(header.colour for header in headers), sizes)
