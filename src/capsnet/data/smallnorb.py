"""smallNORB (LeCun, Huang, Bottou 2004): published files, prepared at 48×48."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from capsnet._support.errors import CapsnetError, shown
from capsnet.data.binary import opened, read_body
from capsnet.data.files import directories, locate, where_to_put
from capsnet.data.npz import read_npz, write_npz
from capsnet.data.views import Views

STEMS = {
    "train": "smallnorb-5x46789x9x18x6x2x96x96-training",
    "test": "smallnorb-5x01235x9x18x6x2x96x96-testing",
}
#: Magic number → NumPy type of the elements. The file is little-endian.
MAGIC = {0x1E3D4C55: "<u1", 0x1E3D4C54: "<i4"}
PREPARED = "smallnorb48"
SIZE = 48
#: SHA-256 of prepared pixels that are known to have JPEG artefacts.
FROM_JPEG = {
    "a4b2f837ad2b25ecb259f16e0fd837d6ffc30dff6bc5abfa30a5bc62469535a8",
    "5226d21a2a6a107aaf41ffc27ec03e09b440f9165de46a21d646233cce96b2e7",
}


def load_views(data_dir: Path | str | None = None) -> tuple[Views, Views, str]:
    """Load training views, test views (48×48) and their provenance.

    The two channels are the two cameras. Reads DIR/smallnorb48/train.npz and test.npz, or the published files in
    DIR/smallnorb. The published files are prepared once and cached.

    Raises:
        CapsnetError: the files are missing or damaged.
    """
    parts = ("train.npz", "test.npz")
    prepared = locate(PREPARED, parts, data_dir)
    if prepared is None:
        import pooch

        published = _published(data_dir)
        if published is None:
            raise CapsnetError(
                f"smallnorb: {STEMS['train']}-dat.mat is not on this machine; get the six files from "
                "https://cs.nyu.edu/~ylclab/data/norb-v1.0-small and "
                f"{where_to_put('smallnorb', Path(data_dir) if data_dir else None)}"
            )
        # Files with and without viewpoint labels have separate caches, since labels may be added later.
        labelled = all("info" in files for files in published.values())
        cache = Path(pooch.os_cache("capsnet")) / (PREPARED if labelled else f"{PREPARED}-unlabelled")
        prepared = [cache / part for part in parts]
        if not all(path.is_file() for path in prepared):
            prepare(published, cache)
    (train, train_hash), (test, test_hash) = (read_prepared(path) for path in prepared)
    about = f"smallNORB, {len(train):,} training and {len(test):,} test stereo pairs at 48×48 (2×2 means)"
    if {train_hash, test_hash} <= FROM_JPEG:
        about += ", whose pixels were once JPEG-compressed (46–50 dB)"
    return train, test, f"{about}; for research only, not to be sold."


def read_matrix(path: Path) -> NDArray[np.uint8] | NDArray[np.int32]:
    """Read a matrix in the published format.

    The format: type, number of dimensions, sizes (at least three), elements.

    Raises:
        CapsnetError: the file has another format, or is damaged, truncated or too long.
    """
    with opened(path) as stream:
        start = np.frombuffer(stream.read(8).ljust(8, b"\0"), "<i4")
        kind, dimensions = (int(number) for number in start)
        if kind not in MAGIC:
            raise CapsnetError(
                f"{shown(path)}: not a smallNORB matrix of bytes or integers (starts with {kind:#010x}); "
                "fetch it again"
            )
        if not 1 <= dimensions <= 8:
            raise CapsnetError(f"{shown(path)}: its header says {dimensions} dimensions; fetch it again")
        sizes = stream.read(4 * max(dimensions, 3))
        if len(sizes) < 4 * max(dimensions, 3):
            raise CapsnetError(f"{shown(path)}: ends within its header; fetch it again")
        shape = [int(n) for n in np.frombuffer(sizes, "<i4")[:dimensions]]
        dtype = np.dtype(MAGIC[kind])
        return np.frombuffer(read_body(stream, path, shape, dtype.itemsize), dtype).reshape(shape)


def halve(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Average 2×2 pixels, rounding half up.

    (…, 2·height, 2·width) → (…, height, width).
    """
    rows = images[..., 0::2, :].astype(np.uint16) + images[..., 1::2, :]
    return ((rows[..., 0::2] + rows[..., 1::2] + 2) // 4).astype(np.uint8)


def prepare(published: dict[str, dict[str, Path]], target: Path) -> None:
    """Convert the published files to 48×48 and write `target`/train.npz and test.npz.

    Raises:
        CapsnetError: a file is damaged, or the files do not fit together.
    """
    for part, files in published.items():
        arrays = {kind: read_matrix(path) for kind, path in files.items()}
        images, category = arrays["dat"].astype(np.uint8, copy=False), arrays["cat"]
        if images.ndim != 4 or images.shape[1:] != (2, 2 * SIZE, 2 * SIZE) or arrays["dat"].dtype != np.uint8:
            raise CapsnetError(
                f"{shown(files['dat'])}: {images.shape}, not stereo pairs of 96×96; fetch it again"
            )
        if category.shape != (len(images),) or category.min() < 0 or category.max() > 4:
            raise CapsnetError(
                f"{shown(files['cat'])}: not the {len(images):,} categories of these images; fetch it again"
            )
        columns: dict[str, NDArray[np.int16]] = {}
        if "info" in arrays:
            info = arrays["info"]
            if info.shape != (len(images), 4):
                raise CapsnetError(
                    f"{shown(files['info'])}: {info.shape}, not 4 numbers per image; fetch it again"
                )
            instance, elevation, azimuth, lighting = info.T.astype(np.int16)
            columns = {
                "instance": instance,
                "elevation": 30 + 5 * elevation,
                "azimuth": 10 * azimuth,
                "lighting": lighting,
            }
        small = np.concatenate([halve(some) for some in np.array_split(images, max(1, len(images) // 1000))])
        write_npz(target / f"{part}.npz", {"images": small, "category": category.astype(np.uint8), **columns})


def read_prepared(path: Path) -> tuple[Views, str]:
    """Read a prepared file. Returns the views and the SHA-256 of their pixels.

    Raises:
        CapsnetError: the file is damaged or has another format.
    """
    arrays = read_npz(path)
    images, category = arrays.get("images"), arrays.get("category")
    if images is None or category is None or images.ndim != 4 or images.dtype != np.uint8:
        raise CapsnetError(f"{shown(path)}: does not hold smallNORB's images and category; prepare it again")
    columns = {
        name: torch.from_numpy(arrays[name].astype(np.int64))
        for name in ("category", "instance", "azimuth", "elevation", "lighting")
        if name in arrays
    }
    if any(column.shape != (len(images),) for column in columns.values()):
        raise CapsnetError(
            f"{shown(path)}: has {len(images):,} images, but another number of labels; prepare it again"
        )
    columns.setdefault("instance", torch.full((len(images),), -1))
    return Views(torch.from_numpy(images), **columns), hashlib.sha256(images.data).hexdigest()


def _published(data_dir: Path | str | None) -> dict[str, dict[str, Path]] | None:
    """Find the published files: part → kind → file.

    They are from the first directory that has them; -info may be missing. None if no directory has them.
    """
    for directory in directories("smallnorb", data_dir):
        found = {
            part: {
                kind: path
                for kind in ("dat", "cat", "info")
                for path in (directory / f"{stem}-{kind}.mat.gz", directory / f"{stem}-{kind}.mat")
                if path.is_file()
            }
            for part, stem in STEMS.items()
        }
        if all({"dat", "cat"} <= files.keys() for files in found.values()):
            return found
    return None
