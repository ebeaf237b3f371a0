"""Data sets by name: `load("mnist5k")`, `load("folder:PATH")`; `names()` lists them."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

from capsnet._support.errors import CapsnetError, did_you_mean
from capsnet.data.dataset import Batch, Dataset, Examples, Source
from capsnet.data.files import root_of

__all__ = ["Batch", "Dataset", "Examples", "Source", "load", "load_dataset", "names", "short_name"]

#: name → (module, what it is). Each module has the function `load(name, data_dir, download)`.
_SETS = {
    "mnist5k": ("digits", "5,000 digits of MNIST; needs no network"),
    "mnist": ("digits", "MNIST, 60,000 + 10,000 digits"),
    "fashion-mnist": ("digits", "Fashion-MNIST, 60,000 + 10,000 garments"),
    "multimnist": ("overlapping", "two overlapping digits in one image, made from MNIST"),
    "multimnist-shift6": ("overlapping", "the same, the digits further apart, as in the paper's code"),
    "multimnist5k": ("overlapping", "as multimnist, made from mnist5k; needs no network"),
    "mnist40": ("affine", "MNIST placed at random on 40×40"),
    "affnist-synth": (
        "affine",
        "trained as mnist40, tested on fixed affine transforms of MNIST's test digits",
    ),
    "affnist": ("affine", "trained as mnist40, tested on the published affNIST (local files only)"),
    "smallnorb": ("viewpoints", "smallNORB, 24,300 + 24,300 stereo pairs of toys (local files only)"),
    "smallnorb-azimuth": ("viewpoints", "the same, tested on azimuths that were not trained on"),
    "smallnorb-elevation": ("viewpoints", "the same, tested on elevations that were not trained on"),
    "objects3d": (
        "viewpoints",
        "rendered toys under smallNORB's viewpoints; rendered once, in about two minutes",
    ),
    "objects3d-azimuth": ("viewpoints", "the same, tested on azimuths that were not trained on"),
    "objects3d-elevation": ("viewpoints", "the same, tested on elevations that were not trained on"),
    "cifar10": ("cifar10", "CIFAR-10, 50,000 + 10,000 photographs, cropped to 24×24"),
    "svhn": ("svhn", "SVHN, 73,257 + 26,032 house numbers"),
}


def names() -> dict[str, str]:
    """The data sets that `load` knows, each with a line about it. Beside them it takes `folder:PATH`."""
    return {name: about for name, (_, about) in _SETS.items()}


def short_name(name: str) -> str:
    """What folders about a data set are called: its name, or the last part of a folder's path; without odd letters.

    >>> short_name("folder:/home/me/my photos")
    'my-photos'
    """
    last = Path(name.removeprefix("folder:")).name
    return re.sub(r"[^A-Za-z0-9._-]+", "-", last).strip(".-") or "images"


def load(
    name: str, data_dir: Path | str | None = None, download: bool = True, image_size: int | None = None
) -> Dataset:
    """Load a data set by name.

    Args:
        name: one of `names()`, or `folder:PATH` for images of one's own, one directory per class.
        data_dir: where to look for files first: DIR or DIR/<name>. Then come $CAPSNET_DATA and the cache.
        download: whether missing files may be fetched.
        image_size: for folders, height and width to resize to. None: as the first image.

    Raises:
        CapsnetError: no such set; its files are missing or damaged and cannot be fetched.
    """
    if data_dir is not None:
        root_of(data_dir, name)  # a slip, whether this set has files or not
    if name.startswith("folder:"):
        if name == "folder:":
            raise CapsnetError("folder: has no path behind it; name a folder, as in folder:photos")
        from capsnet.data.folder import load_folder

        return load_folder(name.removeprefix("folder:"), image_size)
    if name not in _SETS and Path(name).is_dir():
        raise CapsnetError(
            f"there is no data set {name!r}, but a folder; for images of your own: folder:{name}"
        )
    if name not in _SETS:
        raise CapsnetError(
            f"there is no data set {name!r}; choose one of {', '.join(_SETS)}, or folder:PATH"
            f"{did_you_mean(name, _SETS)}"
        )
    if image_size is not None:
        raise CapsnetError(f"--image-size is for folder:PATH only; {name} has a size of its own")
    module = import_module(f"capsnet.data.{_SETS[name][0]}")
    dataset: Dataset = module.load(name, data_dir, download)
    return dataset


#: The same under the name that `capsnet.load_dataset` has.
load_dataset = load
