"""Register data sets by name, also those of other packages (`capsnet.datasets`)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

from capsnet._support.registry import Registry
from capsnet.data.dataset import Dataset

L = TypeVar("L", bound=Callable[..., Dataset])

#: name → (module, what it is).
BUILT_IN = {
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
    "objects3d200": (
        "viewpoints",
        "100 rendered toys to train on and 100 to test on; rendered once, in about ten minutes",
    ),
    "objects3d200-azimuth": ("viewpoints", "the same, tested on azimuths that were not trained on"),
    "objects3d200-elevation": ("viewpoints", "the same, tested on elevations that were not trained on"),
    "cifar10": ("cifar10", "CIFAR-10, 50,000 + 10,000 photographs, cropped to 24×24"),
    "svhn": ("svhn", "SVHN, 73,257 + 26,032 house numbers"),
}


class Loader(Protocol):
    """Loads the data set that is called `name`."""

    def __call__(self, name: str, data_dir: Path | str | None, download: bool) -> Dataset:
        """Return the data set.

        Args:
            name: as the user wrote it; a loader may serve several names.
            data_dir: first place to look for files, if not None.
            download: whether missing files may be downloaded.

        Raises:
            CapsnetError: files are missing or damaged.
        """
        ...


#: Loaders by the names of their data sets.
DATASETS: Registry[Loader] = Registry(
    "data set",
    "capsnet.datasets",
    needs=("__call__",),
    builtin={name: f"capsnet.data.{module}" for name, (module, _) in BUILT_IN.items()},
)


def register(*names: str) -> Callable[[L], L]:
    """Register a loader under the names of its data sets (a decorator).

    See `Loader` for its arguments. `capsnet data` prints the first line of its docstring.

    Raises:
        CapsnetError: a name is taken or malformed.
    """

    def add(loader: L) -> L:
        for name in names:
            DATASETS.register(name)(loader)
        return loader

    return add


def names() -> dict[str, str]:
    """Return the data sets that `load` knows, each with a description in one line.

    `load` also takes `folder:PATH`, `npz:FILE` and `hf:NAME`.
    """
    return {name: BUILT_IN[name][1] if name in BUILT_IN else _about(name) for name in DATASETS.names()}


def _about(name: str) -> str:
    text = DATASETS.get(name).__doc__ or "no description"
    return text.strip().partition("\n")[0]
