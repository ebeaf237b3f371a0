"""A folder of images, one directory per class."""

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
from capsnet.data.folder_split import Half, Layout, find_layout
from capsnet.data.images import ImageInfo, check, read_image
from capsnet.distributed import WorkerGroup, map_locally

#: All pixels stay in memory; a first image of 12 megapixels would ask for all others at that size.
MAX_BYTES = 2**33
#: Files whose headers are looked at together.
HEADERS_AT_ONCE = 500

#: Some image files and the numbers of their classes.
Portion = list[tuple[Path, int]]


@dataclass(frozen=True, eq=False)
class ImageFolder:
    """A folder all of whose names and headers were looked at; its pixels have not been read."""

    layout: Layout
    image_shape: tuple[int, int, int]
    """(channels, height, width) that its images are brought to: in colour if any of them is."""
    images: int
    resized: bool
    """Whether any image has another size."""

    @property
    def name(self) -> str:
        """What it is called on the command line."""
        return f"folder:{shown(self.layout.root)}"

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes' names, each on one line."""
        return tuple(shown(name) for name in self.layout.class_names)

    @property
    def provenance(self) -> str:
        """One sentence about the images."""
        _, height, width = self.image_shape
        resized = f", resized to {width}×{height}" if self.resized else ""
        return (
            f"{self.images:,} images of {len(self.class_names)} classes from {shown(self.layout.root)}{resized}; "
            f"{self.layout.split}."
        )

    def portions(self, half: Half, size: int) -> Iterator[Portion]:
        """The files for training or for testing, in order, `size` at a time."""
        files = self.layout.files(half)
        return iter(lambda: list(islice(files, size)), [])


def load_folder(path: Path | str, image_size: int | None = None) -> Dataset:
    """Read PATH/<class>/<image>, or PATH/train/<class>/<image> and PATH/test/<class>/<image>, into memory.

    Without train/ and test/, about a fifth of the images of each class is held out for testing: an image's name
    decides, whatever lies beside it. Hidden files and directories are ignored; classes are in the order of their sorted
    names; the set is in colour if any image is.

    Args:
        path: the folder.
        image_size: height and width of the network's input. None: the size of the first image.

    Raises:
        CapsnetError: too few classes or images, a file that is no image, a link that leaves the folder; or more
            pixels than `MAX_BYTES`.
    """
    folder = open_folder(path, image_size)
    assert folder is not None
    _, height, width = folder.image_shape
    if folder.images * np.prod(folder.image_shape) > MAX_BYTES:
        raise CapsnetError(
            f"{shown(folder.layout.root)}: {folder.images:,} images of {width}×{height} pixels need more than "
            f"{MAX_BYTES // 2**30} GiB; give a smaller --image-size"
        )
    train, test = (read_portion(folder.layout.files(half), folder.image_shape) for half in ("train", "test"))
    return Dataset(folder.name, train, test, folder.class_names, folder.image_shape, folder.provenance)


def open_folder(
    path: Path | str, image_size: int | None = None, workers: WorkerGroup | None = None
) -> ImageFolder | None:
    """Look at all names and headers of a folder, see `load_folder`; in memory that does not grow with their number.

    Args:
        path: the folder.
        image_size: height and width of the network's input. None: the size of the first image.
        workers: processes that share the work; all of them must make this call. None: this one does it.

    Returns:
        The folder; None in a process that does not lead the workers.

    Raises:
        CapsnetError: as `load_folder`, but for the number of pixels.
    """
    is_main = workers is None or workers.is_main
    layout = find_layout(Path(path).expanduser()) if is_main else None
    share: Callable[[Callable[[list[Path]], _Seen], Iterator[list[Path]]], Iterator[_Seen]]
    share = map_locally if workers is None else workers.map
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
    """Read images and bring them to `image_shape`.

    Args:
        files: at least one image file, each with the number of its class.
        image_shape: (channels, height, width).

    Raises:
        CapsnetError: a file cannot be read as an image.
    """
    images, labels = zip(*((read_image(file, image_shape), label) for file, label in files), strict=True)
    return Examples(torch.stack(images), torch.tensor(labels))


class _Seen(NamedTuple):
    """What the headers of some files say."""

    first: ImageInfo | None = None
    images: int = 0
    colour: bool = False
    sizes: frozenset[tuple[int, int]] = frozenset()
    fault: str | None = None
    """Why one of them is no image."""


def _headers(layout: Layout) -> Iterator[list[Path]]:
    files = (file for half in ("train", "test") for file, _ in layout.files(half))
    return iter(lambda: list(islice(files, HEADERS_AT_ONCE)), [])


def _look(files: list[Path]) -> _Seen:
    try:
        headers = [check(file) for file in files]
    except CapsnetError as error:  # reported by rank 0, in the order of the files
        return _Seen(fault=str(error))
    sizes = frozenset((header.height, header.width) for header in headers)
    return _Seen(headers[0], len(headers), any(header.colour for header in headers), sizes)
