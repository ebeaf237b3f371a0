"""Data sets from arrays."""

import numpy as np
import pytest
import torch

from capsnet import CapsnetError, Dataset
from capsnet.data import Examples

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 12, 14), np.uint8)
LABELS = np.array(["cat", "dog"] * 10)


def examples(dataset: Dataset) -> tuple[Examples, Examples]:
    assert isinstance(dataset.train, Examples)
    assert isinstance(dataset.test, Examples)
    return dataset.train, dataset.test


def test_a_fifth_of_every_class_is_held_out_and_nothing_is_lost() -> None:
    dataset = Dataset.from_arrays(IMAGES, LABELS)
    train, test = examples(dataset)
    assert (dataset.class_names, dataset.image_shape) == (("cat", "dog"), (1, 12, 14))
    assert test.labels.bincount().tolist() == [2, 2]
    both = torch.cat([train.images, test.images])[:, 0].numpy()
    assert sorted(map(bytes, both)) == sorted(map(bytes, IMAGES))
    again = examples(Dataset.from_arrays(IMAGES, LABELS))
    assert torch.equal(again[1].images, test.images)
    other = examples(Dataset.from_arrays(IMAGES, LABELS, seed=1))
    assert not torch.equal(other[1].images, test.images)


@pytest.mark.parametrize(
    "images",
    [
        IMAGES,
        IMAGES / 255,
        torch.from_numpy(IMAGES),
        IMAGES[:, None],
        IMAGES[..., None],
        IMAGES.tolist(),
        (IMAGES / 255).astype(np.float32),
        IMAGES.astype(np.int64),
    ],
)
def test_every_usual_layout_gives_the_same_bytes(images: object) -> None:
    train, _ = examples(Dataset.from_arrays(images, LABELS))
    expected, _ = examples(Dataset.from_arrays(IMAGES, LABELS))
    assert torch.equal(train.images, expected.images)


def test_colours_come_last_or_first() -> None:
    colour = np.random.default_rng(0).integers(0, 256, (20, 12, 14, 3), np.uint8)
    last, first = (
        examples(Dataset.from_arrays(images, LABELS))[0].images
        for images in (colour, colour.transpose(0, 3, 1, 2))
    )
    assert last.shape[1:] == (3, 12, 14)
    assert torch.equal(last, first)


def test_a_test_set_of_ones_own_is_kept_and_numbers_are_named() -> None:
    dataset = Dataset.from_arrays(IMAGES, [0, 1] * 10, IMAGES[:4], [1, 0, 1, 0], class_names=("no", "yes"))
    train, test = examples(dataset)
    assert (len(train), test.labels.tolist()) == (20, [1, 0, 1, 0])
    assert dataset.class_names == ("no", "yes")


@pytest.mark.parametrize(
    ("labels", "test", "numbers"),
    [
        ([1, 2] * 10, [2, 1, 2, 1], [1, 0, 1, 0]),  # counted from 1, as in SVHN
        ([0, 4] * 10, [4.0, 0.0, 4.0, 0.0], [1, 0, 1, 0]),
        (np.array([b"cat", b"dog"] * 10), ["dog", "cat", "dog", "cat"], [1, 0, 1, 0]),
    ],
)
def test_labels_of_a_test_set_mean_what_they_mean_in_training(
    labels: object, test: object, numbers: list[int]
) -> None:
    assert examples(Dataset.from_arrays(IMAGES, labels, IMAGES[:4], test))[1].labels.tolist() == numbers


def test_true_is_white() -> None:
    train, _ = examples(Dataset.from_arrays(IMAGES > 99, LABELS))
    assert set(train.images.unique().tolist()) == {0, 255}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([IMAGES[0], IMAGES[1, :5]], ["cat", "dog"]), "images differ in their sizes"),
        ((np.full((20, 12, 14), "x"), LABELS), "images are text"),
        ((IMAGES, [1, 2] * 10, IMAGES[:2], [2, 3]), "there is no class '3'"),
        ((IMAGES, LABELS[:3]), "20 images and 3 labels"),
        ((IMAGES[0], LABELS), r"images have shape \(12, 14\)"),
        ((IMAGES * 3.0, LABELS), r"floats from .* scale them to 0 … 1"),
        ((IMAGES.astype(int) * 3, LABELS), "they must be 0 … 255"),
        ((np.full((2, 4, 4), np.nan), ["a", "b"]), "NaN or infinity"),
        ((IMAGES, ["cat"] * 20), "one class only, 'cat'"),
        ((IMAGES, np.linspace(0, 1, 20)), "whole numbers"),
        ((IMAGES, LABELS, IMAGES), "test_images and test_labels, or neither"),
        ((IMAGES, LABELS, IMAGES[:1], ["cow"]), "there is no class 'cow'; the classes are cat, dog"),
        ((IMAGES, LABELS, IMAGES[:1, :5], ["cat"]), "the same size"),
        ((IMAGES[:3], ["cat", "dog", "dog"]), "only one example"),
    ],
)
def test_bad_arrays_are_refused_in_one_line(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(CapsnetError, match=message) as caught:
        Dataset.from_arrays(*arguments)
    assert "\n" not in str(caught.value)


def test_labels_outside_the_named_classes_are_refused() -> None:
    with pytest.raises(CapsnetError, match=r"from 0 to 2; with 2 class_names they must be 0 … 1"):
        Dataset.from_arrays(IMAGES, [0, 1, 2, 1] * 5, class_names=("a", "b"))
    with pytest.raises(CapsnetError, match="test_share is 1"):
        Dataset.from_arrays(IMAGES, LABELS, test_share=1)
