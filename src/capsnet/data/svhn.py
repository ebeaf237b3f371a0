"""SVHN: house numbers cropped to single digits (Netzer et al. 2011)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from capsnet._support.errors import CapsnetError, shown
from capsnet.data.dataset import Dataset, Examples
from capsnet.data.files import Download, obtain
from capsnet.data.mat import read_mat
from capsnet.data.registry import register

FILES = ("train_32x32.mat", "test_32x32.mat")
DOWNLOAD = Download(
    mirrors=("http://ufldl.stanford.edu/housenumbers/",),
    hashes={
        FILES[0]: "md5:e26dedcc434d2e4c54c9b2d4a06d8373",
        FILES[1]: "md5:eb5a983be6a315427106f1b164d9cef3",
    },
)


@register("svhn")
def load(name: str = "svhn", data_dir: Path | str | None = None, download: bool = True) -> Dataset:
    """Load SVHN: 73,257 training digits and 26,032 test digits.

    As in the paper, the extra set is not used.

    Raises:
        CapsnetError: a file is missing or damaged.
    """
    train, test = (read_svhn(path) for path in obtain(name, FILES, data_dir, download, DOWNLOAD))
    about = f"SVHN, {len(train):,} training (without the extra set) and {len(test):,} test images."
    return Dataset(name, train, test, tuple("0123456789"), (3, 32, 32), about)


def read_svhn(path: Path) -> Examples:
    """Read one file: X (32, 32, 3, examples) and y (examples, 1).

    In y, 10 is the digit 0.

    Raises:
        CapsnetError: the file has another format.
    """
    variables = read_mat(path)
    try:
        images, labels = np.asarray(variables["X"]), np.atleast_1d(np.asarray(variables["y"]))
        images = images.reshape(32, 32, 3, -1)  # SciPy squeezes a single example
    except (KeyError, ValueError) as error:
        raise CapsnetError(f"{shown(path)}: has no X (32, 32, 3, examples) and y; fetch it again") from error
    if images.dtype != np.uint8 or labels.shape != (images.shape[3],):
        raise CapsnetError(
            f"{shown(path)}: X {images.dtype} {images.shape} and y {labels.shape} do not fit together, or not "
            "the format; fetch it again"
        )
    if labels.min() < 1 or labels.max() > 10:
        raise CapsnetError(f"{shown(path)}: has labels outside 1 to 10; fetch it again")
    return Examples(
        torch.from_numpy(np.ascontiguousarray(images.transpose(3, 2, 0, 1))),
        torch.from_numpy(labels.astype(np.int64) % 10),
    )
