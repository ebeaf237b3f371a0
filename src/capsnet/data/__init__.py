"""Load data sets by name: `load("mnist5k")`, `load("folder:PATH")`, `names()`.

dataset.py         the types that the rest of the package uses: examples, sources, data sets
arrays.py          images and labels in memory → tensors
registry.py        data sets by name; `register` adds one, also from outside the package
files.py           finding, downloading and checking files; idx, mat, npz, binary: their formats
digits.py …        one file per family of data sets
folder.py          your own images; folder_split.py, which of them are held out
npz_images.py      npz:FILE; hugging_face.py, hf:NAME; multi_label.py, any number of classes in an image
augmentation.py    shifts, crops, affine maps, from random numbers drawn before; warping.py

May import `functional`, `distributed` and `_support`. Begin with `dataset.py`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from capsnet._support.errors import CapsnetError, did_you_mean, shown
from capsnet.data.dataset import Batch, Dataset, Examples, Source
from capsnet.data.files import root_of
from capsnet.data.registry import DATASETS, names, register

__all__ = [
    "DATASETS",
    "Batch",
    "Dataset",
    "Examples",
    "Source",
    "load",
    "load_dataset",
    "load_local",
    "names",
    "register",
    "short_name",
]


#: Data of the user's own: the word before the colon, and an example.
KINDS = {"folder": "folder:photos", "npz": "npz:pneumoniamnist.npz", "hf": "hf:ylecun/mnist"}


def short_name(name: str) -> str:
    """Return a short name for files about a data set.

    This is its name, or the last part of a folder's path, with unusual characters replaced by "-".

    >>> short_name("folder:/home/me/my photos")
    'my-photos'
    """
    kind, _, rest = name.partition(":")
    last = Path(rest.partition("?")[0] if kind in KINDS else name).name
    return re.sub(r"[^A-Za-z0-9._-]+", "-", last).strip(".-") or "images"


def load(
    name: str, data_dir: Path | str | None = None, download: bool = True, image_size: int | None = None
) -> Dataset:
    """Load a data set by name.

    Args:
        name: one of `names()`; `folder:PATH` for your own images, one directory per class; `npz:FILE` in MedMNIST's
            layout; or `hf:NAME` or `hf:FOLDER` for Hugging Face `datasets`, see `capsnet.data.hugging_face`.
        data_dir: first place to look for files: DIR or DIR/<name>. Then $CAPSNET_DATA and the cache.
        download: whether missing files may be downloaded.
        image_size: for folders and `hf:`, height and width to resize to. None: the size of the first image.

    Raises:
        CapsnetError: the data set is unknown, or its files are missing or damaged and cannot be downloaded.
    """
    if data_dir is not None:
        root_of(data_dir, name)  # report a wrong path even for sets without files
    kind, colon, rest = name.partition(":")
    if colon and kind in KINDS:
        return _load_kind(kind, rest, download, image_size)
    known = DATASETS.names()
    if name not in known and Path(name).is_dir():
        raise CapsnetError(f"{name!r} is a folder, not a data set; for your own images: folder:{name}")
    if name not in known:
        raise CapsnetError(
            f"there is no data set {name!r}; choose one of {', '.join(known)}, or folder:PATH, npz:FILE, hf:NAME"
            f"{did_you_mean(name, known)}"
        )
    loader = DATASETS.get(name)
    if image_size is not None:
        raise CapsnetError(
            f"--image-size is for folder:PATH and hf:NAME only; the images of {name} have a fixed size"
        )
    return loader(name, data_dir, download)


def _load_kind(kind: str, rest: str, download: bool, image_size: int | None) -> Dataset:
    if not rest:
        raise CapsnetError(f"{kind}: needs a path after it, as in {KINDS[kind]}")
    if kind == "folder":
        from capsnet.data.folder import load_folder

        return load_folder(rest, image_size)
    if kind == "hf":
        from capsnet.data.hugging_face import load_hugging_face

        return load_hugging_face(rest, image_size, download)
    from capsnet.data.npz_images import load_npz

    if image_size is not None:
        raise CapsnetError("--image-size is for folder:PATH and hf:NAME only; resize the arrays of the file")
    return load_npz(rest)


def load_local(
    name: str | None,
    image_shape: tuple[int, int, int],
    num_classes: int,
    class_names: Sequence[str] | None = None,
) -> Dataset | None:
    """Load a data set if it is on this machine, else mnist5k; None if neither fits.

    Args:
        name: of the data set that the model was trained on, if it is known.
        image_shape: (channels, height, width) of the model's images.
        num_classes: number of the model's classes.
        class_names: names of the model's classes, if it has any.
    """
    wanted = None if class_names is None else [shown(name) for name in class_names]
    for candidate in dict.fromkeys((name, "mnist5k")):
        if candidate is None:
            continue
        resized = candidate.startswith(("folder:", "hf:")) and image_shape[1] == image_shape[2]
        size = image_shape[1] if resized else None
        try:
            dataset = load(candidate, download=False, image_size=size)
        except CapsnetError:
            continue
        fits = (tuple(dataset.image_shape), len(dataset.class_names)) == (image_shape, num_classes)
        if fits and wanted in (None, [shown(name) for name in dataset.class_names]):
            return dataset
    return None


#: `load` under the name of `capsnet.load_dataset`.
load_dataset = load
