"""Digits placed and transformed on a larger canvas; affNIST's format."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import savemat

from capsnet._support.errors import CapsnetError
from capsnet.data import Examples, load
from capsnet.data.affine import (
    SEVERITIES,
    Transform,
    affine_test_maps,
    affine_test_set,
    exact_warp,
    severity_series,
)
from capsnet.data.affnist import load_affnist_test, read_affnist
from capsnet.data.masks import boxes


def digest(images: torch.Tensor) -> str:
    return hashlib.sha256(images.numpy().tobytes()).hexdigest()


def digits(count: int = 100) -> Examples:
    test = load("mnist5k").test
    assert isinstance(test, Examples)
    return test.subset(torch.arange(count))


def test_mnist40_and_affnist_synth(real_data: Callable[[str], Path]) -> None:
    directory = real_data("mnist")
    placed, transformed = load("mnist40", directory), load("affnist-synth", directory)
    for dataset in (placed, transformed):
        assert (dataset.image_shape, len(dataset.train), len(dataset.test)) == ((1, 40, 40), 60_000, 10_000)
        assert dataset.train.draws == 2
        assert dataset.train.batch(torch.tensor([0]), torch.zeros(1, 2)).images.shape == (1, 1, 40, 40)
        assert dataset.test.draws == 0
    pixels = (placed.test.batch(torch.arange(10_000)).images * 255).round().to(torch.uint8)
    assert digest(pixels) == "5255fb7e680e15b54feec47b8b171936707200df9765c072a8093e3839192f84"
    assert isinstance(transformed.test, Examples)
    assert (
        digest(transformed.test.images) == "cc0da77f0e61e6e25caa8ff28310a97412186796730cd493b4e9cf05bbefad68"
    )
    assert "NOT affNIST" in transformed.provenance


def test_the_frozen_transforms_are_the_same_everywhere() -> None:
    """Without MNIST too: the same check on the digits that need no network."""
    assert digest(affine_test_set(digits()).images) == FROZEN
    assert not torch.equal(digits().images[:, :, :20], affine_test_set(digits(), canvas=28).images[:, :, :20])


FROZEN = "a73e12b33246485ae642eacd8530ddb00d99bcc225cb5705324b869a15c33a33"


def test_all_ink_stays_on_the_canvas() -> None:
    digits_ = digits(200)
    transformed = affine_test_set(digits_, canvas=60)
    box = boxes(transformed.images[:, None])[:, 0]
    size = (box[:, 2:] - box[:, :2]).float()
    assert float((size.mean(0) / 20).max()) < 1.3
    # Ink touching the border would have been cut off; on a canvas this large every place is used.
    before, after = digits_.images.float().sum((1, 2, 3)), transformed.images.float().sum((1, 2, 3))
    assert 0.64 * 0.95 < float((after / before).min()) < float((after / before).max()) < 1.44 * 1.05
    assert int(box[:, :2].min()) < 5
    assert int(box[:, 2:].max()) > 55


def test_the_maps_say_where_each_digit_went() -> None:
    digits_ = digits(50)
    still = {"rotation": 0.0, "shear": 0.0, "scale": (1.0, 1.0)}
    before, after = (
        boxes(one.images[:, None])[:, 0].float() for one in (digits_, affine_test_set(digits_, **still))
    )
    moved = affine_test_maps(digits_, **still)[:, :, 2].float()
    corners = (after - before)[:, [1, 0]] - (40 - 28) / 2  # across, down, from centre to centre
    assert float((corners - moved).abs().max()) <= 1  # whole pixels
    assert float(moved.abs().max()) > 6


@pytest.mark.parametrize("transform", list(SEVERITIES))
def test_severity_series(transform: Transform) -> None:
    examples = digits()
    series = severity_series(examples, transform)
    assert list(series) == list(SEVERITIES[transform])
    centred = torch.zeros(100, 1, 40, 40, dtype=torch.uint8)
    centred[:, :, 6:34, 6:34] = examples.images
    assert torch.equal(series[0].images, centred), "amount 0 leaves the digit alone, centred"
    changes = [float((part.images.float() - centred.float()).abs().mean()) for part in series.values()]
    assert changes == sorted(changes), "more is more"
    assert all(torch.equal(part.labels, examples.labels) for part in series.values())
    both = severity_series(examples, transform, [SEVERITIES[transform][2]], canvas=28)
    assert next(iter(both.values())).images.shape == (100, 1, 28, 28)


def test_severities_mean_what_they_say() -> None:
    dot = torch.zeros(40, 1, 9, 9, dtype=torch.uint8)
    dot[:, :, 4, 7] = 255  # three right of the centre
    examples = Examples(dot, torch.zeros(40, dtype=torch.int64))

    def places(transform: Transform, amount: float) -> set[tuple[int, int]]:
        images = severity_series(examples, transform, [amount], canvas=11)[amount].images
        brightest = images.flatten(1).argmax(1)
        return {(int(i) // 11 - 5, int(i) % 11 - 5) for i in brightest}

    assert places("rotation", 90) == {(-3, 0), (3, 0)}
    assert places("translation", 2) == {(-2, 1), (-2, 5), (2, 1), (2, 5)}
    assert places("scale", 0.5) == {(0, 2), (0, 4)} or places("scale", 0.5) == {(0, 2), (0, 5)}
    assert places("shear", 0.5) == {(0, 3)}


def test_exact_warp_moves_by_whole_pixels_without_loss() -> None:
    image = torch.randint(0, 256, (1, 2, 5, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    matrices = torch.tensor([[[1.0, 0, 1], [0, 1, -2]]])
    moved = exact_warp(image, matrices, 9)
    assert torch.equal(moved[:, :, :5, 3:8], image)
    assert moved.sum() == image.sum()


def affnist(images: np.ndarray, labels: np.ndarray) -> dict[str, object]:
    """As published: a structure of one element, one column per image."""
    one_of_n = np.eye(10, dtype=np.uint8)[labels].T
    return {
        "affNISTdata": {
            "image": images.reshape(len(images), 1600).T,
            "label_int": labels[None].astype(np.uint8),
            "label_one_of_n": one_of_n,
        }
    }


@pytest.mark.parametrize("count", [1, 7])
@pytest.mark.parametrize("place", ["affnist/test.mat", "test.mat", "affnist/transformed/test.mat"])
def test_affnist_format(tmp_path: Path, count: int, place: str) -> None:
    images = np.random.default_rng(0).integers(0, 256, (count, 40, 40), dtype=np.uint8)
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    savemat(tmp_path / place, affnist(images, np.arange(count)), do_compression=True)
    test = load_affnist_test(tmp_path)
    assert np.array_equal(test.images[:, 0].numpy(), images)
    assert test.labels.tolist() == list(range(count))


def test_affnist_batches_are_joined_in_their_order(tmp_path: Path) -> None:
    (tmp_path / "affnist" / "test_batches").mkdir(parents=True)
    for number in (10, 2, 1):
        images = np.full((2, 40, 40), number, np.uint8)
        savemat(tmp_path / "affnist" / "test_batches" / f"{number}.mat", affnist(images, np.array([1, 2])))
    assert load_affnist_test(tmp_path).images[:, 0, 0, 0].tolist() == [1, 1, 2, 2, 10, 10]


def test_affnist_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CAPSNET_DATA", raising=False)
    with pytest.raises(
        CapsnetError, match=r"affnist: test.mat is not on this machine; unpack .*affnist, or give"
    ):
        load_affnist_test(tmp_path)
    path = tmp_path / "test.mat"
    good = affnist(np.zeros((3, 40, 40), np.uint8), np.arange(3))
    savemat(path, good)
    whole = path.read_bytes()
    for content, message in (
        (b"", "not a MATLAB file, or damaged"),
        (b"MATLAB 5.0 MAT-file" + b" " * 200, "not a MATLAB file, or damaged"),
        (whole[: len(whole) // 2], "not a MATLAB file, or damaged"),
        (
            b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + b"\x89HDF\r\n\x1a\n" * 9,
            "MATLAB 7.3 files are not read",
        ),
    ):
        path.write_bytes(content)
        with pytest.raises(CapsnetError, match=message):
            read_affnist(path)
    fields = good["affNISTdata"]
    assert isinstance(fields, dict)
    for variables, message in (
        ({"other": 1}, "has no affNISTdata"),
        (
            {"affNISTdata": {"image": np.zeros((1601, 3), np.uint8), "label_int": np.arange(3)}},
            "has no affNISTdata",
        ),
        ({"affNISTdata": fields | {"label_int": np.arange(4)}}, "do not fit together"),
        ({"affNISTdata": fields | {"image": np.zeros((1600, 3))}}, "do not fit together"),
        ({"affNISTdata": fields | {"label_int": np.array([1, 2, 10])}}, "labels outside 0 to 9"),
    ):
        savemat(path, variables)
        with pytest.raises(CapsnetError, match=message):
            read_affnist(path)


def test_affnist_as_a_data_set(tmp_path: Path, real_data: Callable[[str], Path]) -> None:
    mnist = real_data("mnist")
    (tmp_path / "mnist").symlink_to(mnist / "mnist")
    (tmp_path / "affnist").mkdir()
    images = np.zeros((2, 40, 40), np.uint8)
    savemat(tmp_path / "affnist" / "test.mat", affnist(images, np.array([3, 4])))
    dataset = load("affnist", tmp_path)
    assert dataset.test.batch(torch.arange(2)).labels.flatten().tolist() == [3, 4]
    assert "2 digits of the published affNIST test set" in dataset.provenance
