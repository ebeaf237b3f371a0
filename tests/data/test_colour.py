"""CIFAR-10 and SVHN in their published formats, and few-example training sets."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import savemat

from capsnet import CapsNet, CapsNetConfig
from capsnet._support.errors import CapsnetError
from capsnet.data import Examples, load
from capsnet.data.cifar10 import ARCHIVE, FILES, read_batch
from capsnet.data.subsets import PER_CLASS, per_class
from capsnet.data.svhn import read_svhn


@pytest.fixture(autouse=True)
def _nothing_of_our_own(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    if "real_data" not in request.fixturenames:
        monkeypatch.delenv("CAPSNET_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def records(count: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    return np.concatenate(
        [
            random.integers(0, 10, (count, 1), dtype=np.uint8),
            random.integers(0, 256, (count, 3072), dtype=np.uint8),
        ],
        axis=1,
    )


def cifar_files(count: int = 4) -> dict[str, bytes]:
    return {name: records(count, seed).tobytes() for seed, name in enumerate(FILES)}


@pytest.mark.parametrize("archived", [True, False])
def test_cifar10(tmp_path: Path, archived: bool) -> None:
    files = cifar_files()
    directory = tmp_path / "cifar-10-batches-bin"
    if archived:
        with tarfile.open(tmp_path / ARCHIVE, "w:gz") as tar:
            for name, content in [*files.items(), ("readme.html", b"hi")]:
                member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    else:
        directory.mkdir()
        for name, content in files.items():
            (directory / name).write_bytes(content)
    dataset = load("cifar10", tmp_path, download=False)
    assert (len(dataset.train), len(dataset.test), dataset.image_shape) == (20, 4, (3, 24, 24))
    assert "20 of the 50,000 training and 4 of the 10,000 test images" in dataset.provenance
    assert isinstance(dataset.train, Examples)
    second = records(4, 1)
    assert np.array_equal(dataset.train.images[4:8].numpy(), second[:, 1:].reshape(4, 3, 32, 32))
    assert dataset.train.labels[4:8].tolist() == second[:, 0].tolist()


def test_cifar10_is_varied_in_training_and_cropped_at_test(tmp_path: Path) -> None:
    for name, content in cifar_files().items():
        (tmp_path / name).write_bytes(content)
    dataset = load("cifar10", tmp_path)
    assert isinstance(dataset.test, Examples)
    test = dataset.test.batch(torch.arange(4))
    torch.testing.assert_close(test.originals[:, 0], dataset.test.images[:, :, 4:28, 4:28].float() / 255)
    assert torch.equal(test.images, test.originals[:, 0])
    model = CapsNet(CapsNetConfig.for_dataset(dataset, stem_channels=2, primary_types=1))
    seen = model.prepare(test.images)
    torch.testing.assert_close(seen.mean((1, 2, 3)), torch.zeros(4), rtol=0, atol=1e-5)
    torch.testing.assert_close(seen.std((1, 2, 3), correction=0), torch.ones(4))
    assert dataset.train.draws == 5  # two for the crop, flip, brightness, contrast
    train = dataset.train.batch(torch.arange(4), torch.rand(4, 5))
    assert train.images.shape == (4, 3, 24, 24)
    assert 0 <= float(train.originals.min()) <= float(train.originals.max()) <= 1


@pytest.mark.slow
def test_real_cifar10(real_data: Callable[[str], Path]) -> None:
    dataset = load("cifar10", real_data("cifar-10-batches-bin"))
    assert (len(dataset.train), dataset.class_names[0]) == (50_000, "airplane")
    assert isinstance(dataset.train, Examples)
    assert torch.bincount(dataset.train.labels).tolist() == [5000] * 10
    pixels = dataset.train.images.permute(0, 2, 3, 1).contiguous().numpy()
    assert hashlib.sha256(pixels.data).hexdigest().startswith("47af8b02cfcf")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "0 bytes are not whole records of 3,073; it is truncated"),
        (bytes(3072), "3,072 bytes are not whole records"),
        (b"\x0a" + bytes(3072), "has label 10; CIFAR-10 has 0 to 9"),
    ],
)
def test_damaged_cifar10_batches(content: bytes, message: str) -> None:
    with pytest.raises(CapsnetError, match=message):
        read_batch(content, "data_batch_1.bin")


def test_damaged_cifar10_archives(tmp_path: Path) -> None:
    (tmp_path / ARCHIVE).write_bytes(b"\x1f\x8b not really")
    with pytest.raises(CapsnetError, match="damaged archive"):
        load("cifar10", tmp_path)
    with tarfile.open(tmp_path / ARCHIVE, "w:gz"):
        pass
    with pytest.raises(CapsnetError, match=r"has no data_batch_1\.bin"):
        load("cifar10", tmp_path)


def test_missing_cifar10_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(CapsnetError, match=r"cifar10: cifar-10-binary.tar.gz is not on this machine"):
        load("cifar10", tmp_path, download=False)
    (tmp_path / FILES[0]).write_bytes(records(1, 0).tobytes())
    with pytest.raises(CapsnetError, match=r"has data_batch_1.bin but not data_batch_2.bin, "):
        load("cifar10", tmp_path, download=False)


@pytest.mark.parametrize("count", [1, 5])
def test_svhn(tmp_path: Path, count: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (32, 32, 3, count), dtype=np.uint8)
    labels = np.array([10, 1, 2, 9, 10][:count], np.uint8)[:, None]
    for name in ("train_32x32.mat", "test_32x32.mat"):
        savemat(tmp_path / name, {"X": images, "y": labels})
    dataset = load("svhn", tmp_path, download=False)
    assert isinstance(dataset.train, Examples)
    assert dataset.train.labels.tolist() == [0, 1, 2, 9, 0][:count], "10 stands for the digit 0"
    assert np.array_equal(dataset.train.images[0].numpy(), images[:, :, :, 0].transpose(2, 0, 1))
    assert dataset.image_shape == (3, 32, 32)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"a": 1}, "has no X"),
        ({"X": np.zeros((32, 31, 3, 2), np.uint8), "y": np.ones(2)}, "has no X"),
        ({"X": np.zeros((32, 32, 3, 2), np.uint8), "y": np.ones(3)}, "do not fit together"),
        ({"X": np.zeros((32, 32, 3, 2)), "y": np.ones(2)}, "do not fit together"),
        ({"X": np.zeros((32, 32, 3, 2), np.uint8), "y": np.array([0, 1])}, "labels outside 1 to 10"),
    ],
)
def test_damaged_svhn(tmp_path: Path, variables: dict[str, np.ndarray], message: str) -> None:
    savemat(tmp_path / "x.mat", variables)
    with pytest.raises(CapsnetError, match=message):
        read_svhn(tmp_path / "x.mat")


def test_per_class() -> None:
    train = load("mnist5k").train
    assert isinstance(train, Examples)
    sets: list[set[bytes]] = []
    for count in PER_CLASS:
        few = per_class(train, count, seed=3)
        assert torch.bincount(few.labels).tolist() == [count or 400] * 10
        sets.append({image.numpy().tobytes() for image in few.images})
    assert all(smaller <= larger for smaller, larger in pairwise(sets)), "parts of each other"
    assert torch.equal(per_class(train, 5, 3).images, per_class(train, 5, 3).images)
    assert not torch.equal(per_class(train, 5, 3).images, per_class(train, 5, 4).images)
    for count in (0, 401):
        with pytest.raises(CapsnetError, match=f"cannot take {count} examples per class: class 0 has 400"):
            per_class(train, count, 0)
