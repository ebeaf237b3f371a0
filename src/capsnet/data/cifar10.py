"""CIFAR-10 (Krizhevsky 2009), cropped and augmented as in the authors' code."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from capsnet._support.errors import CapsnetError, shown
from capsnet.data.augmentation import Brightness, CenterCrop, Compose, Contrast, Flip, RandomCrop
from capsnet.data.dataset import Dataset, Examples
from capsnet.data.files import Download, locate, obtain
from capsnet.data.registry import register

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
DIRECTORY = "cifar-10-batches-bin"
FILES = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")
ARCHIVE = "cifar-10-binary.tar.gz"
#: The MD5 that the data set's author publishes.
DOWNLOAD = Download(
    mirrors=("https://www.cs.toronto.edu/~kriz/",),
    hashes={ARCHIVE: "md5:c32a1d4ab5d03f1284b67883e8d87530"},
)
#: Bytes of one example: a label and 3 × 32 × 32 pixels.
RECORD = 1 + 3072
CROP = 24
#: Upper limit; the published archive holds 184 MB.
MAX_BYTES = 2**28


@register("cifar10")
def load(name: str = "cifar10", data_dir: Path | str | None = None, download: bool = True) -> Dataset:
    """Load CIFAR-10, with random 24×24 crops, flips, brightness and contrast.

    Test images are cropped to the centre. The network standardises each image. Local files may hold fewer images than
    the published ones.

    Raises:
        CapsnetError: the files are missing or damaged.
    """
    paths = locate(DIRECTORY, FILES, data_dir)
    if paths is not None:
        contents = [path.read_bytes() for path in paths]
        names = [shown(path) for path in paths]
    else:
        (archive,) = obtain("cifar10", [ARCHIVE], data_dir, download, DOWNLOAD)
        contents = _unpack(archive)
        names = [f"{shown(archive)}/{file}" for file in FILES]
    parts = [read_batch(content, shown_name) for content, shown_name in zip(contents, names, strict=True)]
    images, labels = zip(*parts, strict=True)
    varied = Compose([RandomCrop(CROP), Flip(), Brightness(63 / 255), Contrast(0.2, 1.8)])
    train = Examples(torch.cat(images[:-1]), torch.cat(labels[:-1]), augment=varied)
    test = Examples(images[-1], labels[-1], augment=CenterCrop(CROP))
    return Dataset(
        name, train, test, CLASSES, (3, CROP, CROP), _about(len(train), len(test)), standardize=True
    )


def _about(train: int, test: int) -> str:
    def share(count: int, published: int) -> str:
        return f"{count:,}" if count == published else f"{count:,} of the {published:,}"

    return f"CIFAR-10, {share(train, 50_000)} training and {share(test, 10_000)} test images."


def read_batch(content: bytes, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the images (examples, 3, 32, 32) and labels (examples,) of a binary file.

    Args:
        content: the file's bytes.
        name: its name in error messages.

    Raises:
        CapsnetError: the bytes are not whole records, or a label is above 9.
    """
    if not content or len(content) % RECORD:
        raise CapsnetError(
            f"{name}: {len(content):,} bytes are not whole records of {RECORD:,}; it is truncated or not a "
            "CIFAR-10 batch, fetch it again"
        )
    records = np.frombuffer(bytearray(content), np.uint8).reshape(-1, RECORD)
    if records[:, 0].max() > 9:
        raise CapsnetError(f"{name}: has label {records[:, 0].max()}; CIFAR-10 has 0 to 9; fetch it again")
    images = torch.from_numpy(np.ascontiguousarray(records[:, 1:])).view(-1, 3, 32, 32)
    return images, torch.from_numpy(records[:, 0].astype(np.int64))


def _unpack(archive: Path) -> list[bytes]:
    """Read the files from the archive, without extracting them to disk."""
    found: dict[str, bytes] = {}
    read = 0
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                read += member.size
                if read > MAX_BYTES or member.size < 0:  # checked before decompression
                    raise tarfile.TarError("its files have more bytes than CIFAR-10")
                name = Path(member.name).name
                if name in FILES and member.isreg():  # never through a link
                    stream = tar.extractfile(member)
                    assert stream is not None
                    found[name] = stream.read()
    except (OSError, EOFError, ValueError, LookupError, zlib.error, tarfile.TarError) as error:
        raise CapsnetError(
            f"{shown(archive)}: damaged archive ({shown(str(error))}); delete it and run again"
        ) from error
    missing: Sequence[str] = [name for name in FILES if name not in found]
    if missing:
        raise CapsnetError(f"{shown(archive)}: has no {missing[0]}; delete it and run again")
    return [found[name] for name in FILES]
