"""The published affNIST test set (T. Tieleman), from local MATLAB files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from capsnet._support.errors import CapsnetError, shown
from capsnet.data.dataset import Examples
from capsnet.data.files import directories, where_to_put
from capsnet.data.mat import read_mat

SIDE = 40
#: Paths of the transformed test set in the published archives: one file, or 32.
PLACES = ("test.mat", "transformed/test.mat", "test_batches/*.mat", "transformed/test_batches/*.mat")


def load_affnist_test(data_dir: Path | str | None = None) -> Examples:
    """Load affNIST's test digits: 320,000 variants of MNIST's 10,000.

    If the files hold fewer, those are loaded.

    Raises:
        CapsnetError: the files are missing, damaged, or hold other data.
    """
    for directory in directories("affnist", data_dir):
        for place in PLACES:
            if found := sorted(directory.glob(place), key=lambda path: (len(path.name), path.name)):
                parts = [read_affnist(path) for path in found]
                return Examples(
                    torch.cat([part.images for part in parts]), torch.cat([part.labels for part in parts])
                )
    remedy = where_to_put("affnist", Path(data_dir) if data_dir else None)
    raise CapsnetError(
        "affnist: test.mat is not on this machine; unpack the transformed test set of "
        f"https://www.cs.toronto.edu/~tijmen/affNIST and {remedy}"
    )


def read_affnist(path: Path) -> Examples:
    """Read one file: affNISTdata with image (1600, examples) and label_int (examples).

    Raises:
        CapsnetError: the file has another format.
    """
    variables = read_mat(path)
    try:
        data = variables["affNISTdata"]
        # SciPy squeezes a single example to (1600,) and a number.
        images = np.asarray(data["image"])
        images = images.reshape(SIDE * SIDE, -1).T.reshape(-1, 1, SIDE, SIDE)
        labels = np.atleast_1d(np.asarray(data["label_int"]))
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise CapsnetError(
            f"{shown(path)}: has no affNISTdata with image (1600, examples) and label_int; fetch it again"
        ) from error
    if images.dtype != np.uint8 or labels.ndim != 1 or len(images) != len(labels):
        raise CapsnetError(
            f"{shown(path)}: image {images.dtype} {images.shape} and label_int {labels.shape} do not fit "
            "together, or not the format; fetch it again"
        )
    if labels.min() < 0 or labels.max() > 9:
        raise CapsnetError(f"{shown(path)}: has labels outside 0 to 9; fetch it again")
    return Examples(torch.from_numpy(np.ascontiguousarray(images)), torch.from_numpy(labels.astype(np.int64)))
