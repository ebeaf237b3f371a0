"""Data sets in their published formats, tiny and made up."""

import gzip
import struct
from pathlib import Path

import numpy as np
import torch
from scipy.io import savemat

from capsnet.data.npz import write_npz
from capsnet.data.views import Views

TOYS = 90


def write_idx(path: Path, array: np.ndarray) -> None:
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    path.write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes(), 1))


def blots(random: np.random.RandomState, labels: np.ndarray, size: int, room: int) -> np.ndarray:
    """Images that look a little like digits: a bright rectangle whose shape depends on the class."""
    images = np.zeros((len(labels), size, size), np.uint8)
    for image, label in zip(images, labels, strict=True):
        top, left = random.randint(room, room + 3, 2)
        image[top : top + 4 + label, left : left + 14 - label] = random.randint(150, 255)
    return images


def views(random: np.random.RandomState, channels: int) -> Views:
    labels = np.arange(TOYS) % 5
    images = np.stack([blots(random, labels, 48, 10)] * channels, axis=1)
    azimuth, elevation = torch.arange(TOYS) % 18 * 20, 30 + torch.arange(TOYS) % 9 * 5
    instance, lighting = torch.zeros(TOYS, dtype=torch.long), torch.zeros(TOYS, dtype=torch.long)
    return Views(torch.from_numpy(images), torch.from_numpy(labels), instance, azimuth, elevation, lighting)


def write_data_sets(folder: Path) -> None:
    """MNIST, Fashion-MNIST, CIFAR-10, SVHN and smallNORB, each in the folder that its loader looks for."""
    random = np.random.RandomState(0)
    for name in ("mnist", "fashion-mnist", "cifar-10-batches-bin", "svhn", "smallnorb48"):
        (folder / name).mkdir()
    for part, count in (("train", 200), ("t10k", 80)):
        labels = np.arange(count) % 10
        for name in ("mnist", "fashion-mnist"):
            write_idx(folder / name / f"{part}-images-idx3-ubyte.gz", blots(random, labels, 28, 5))
            write_idx(folder / name / f"{part}-labels-idx1-ubyte.gz", labels)
    for name in (*(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin"):
        records = random.randint(0, 256, (20, 3073), dtype=np.uint8)
        records[:, 0] %= 10
        (folder / "cifar-10-batches-bin" / name).write_bytes(records.tobytes())
    for part in ("train", "test"):
        pixels = random.randint(0, 256, (32, 32, 3, 64), dtype=np.uint8)
        savemat(folder / "svhn" / f"{part}_32x32.mat", {"X": pixels, "y": np.arange(64)[:, None] % 10 + 1})
        columns = {name: np.asarray(value) for name, value in vars(views(random, 2)).items()}
        write_npz(folder / "smallnorb48" / f"{part}.npz", columns)
