"""Overlapping digits, and the frozen random choices of test sets."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from capsnet.data import Dataset, Examples, load
from capsnet.data.augmentation import RandomPlacement
from capsnet.data.fixed_random import Frozen, freeze, frozen_uniforms, splitmix64
from capsnet.data.masks import box_overlap, boxes, segmentation
from capsnet.data.overlapping import Pairs


def examples(labels: list[int], size: int = 6) -> Examples:
    """Image i is filled with the grey value 10·i + 5."""
    values = torch.arange(len(labels), dtype=torch.uint8) * 10 + 5
    return Examples(values[:, None, None, None].expand(-1, 1, size, size).contiguous(), torch.tensor(labels))


def test_splitmix64_is_the_published_generator() -> None:
    numbers = [int(z) for z in splitmix64(np.arange(3, dtype=np.uint64))]
    assert numbers == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]


def test_frozen_uniforms_never_change() -> None:
    table = frozen_uniforms(7, 1000, 3)
    assert table.dtype == torch.float64
    assert hashlib.sha256(table.numpy().tobytes()).hexdigest().startswith(UNIFORMS)
    assert 0 <= float(table.min()) < 0.01
    assert 0.99 < float(table.max()) < 1
    assert torch.equal(frozen_uniforms(7, 10, 3), table[:10]), "a longer table begins with the shorter one"
    assert not (frozen_uniforms(8, 1000, 3) == table).any()


UNIFORMS = "6e5d10af43269722"


def test_frozen_sources_repeat_their_examples_with_fixed_choices() -> None:
    plain = examples([0, 1, 2])
    source = Examples(plain.images, plain.labels, augment=RandomPlacement(9))
    frozen = freeze(source, stream=3, examples=7)
    assert (len(frozen), frozen.draws) == (7, 0)
    batch = frozen.batch(torch.arange(7))
    assert batch.labels.flatten().tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert not torch.equal(batch.images[0], batch.images[3]), "the same digit, placed anew"
    picked = frozen.batch(torch.tensor([5, 2]))
    assert torch.equal(picked.images, batch.images[[5, 2]])
    assert torch.equal(frozen.subset(torch.tensor([5, 2])).batch(torch.arange(2)).images, picked.images)
    with pytest.raises(ValueError, match="takes no uniform numbers"):
        frozen.batch(torch.arange(2), torch.rand(2, 2))


@given(
    labels=st.lists(st.integers(0, 4), min_size=2, max_size=12).filter(lambda labels: len(set(labels)) > 1),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=40, derandomize=True)
def test_pairs_are_of_different_classes_and_every_partner_can_come(labels: list[int], seed: int) -> None:
    pairs = Pairs.of(examples(labels), canvas=8, shift=1)
    count = 200
    first = torch.full((count,), seed % len(labels))
    uniforms = torch.rand(count, 5, generator=torch.Generator().manual_seed(seed))
    uniforms[:, 0] = torch.arange(count) / count
    partners, shifts = pairs.choices(first, uniforms)
    own = labels[seed % len(labels)]
    assert set(partners.tolist()) == {i for i, label in enumerate(labels) if label != own}
    assert torch.bincount(partners).max() <= -(-count // sum(label != own for label in labels)) + 1, "alike"
    assert set(shifts.flatten().tolist()) == {-1, 0, 1}


@pytest.mark.parametrize(("shift", "canvas"), [(1, 8), (2, 7), (4, 12)])
def test_both_digits_lie_where_their_shifts_say(shift: int, canvas: int) -> None:
    pairs = Pairs.of(examples([0, 1, 1, 2]), shift=shift, canvas=canvas)
    indices = torch.tensor([0, 1, 3, 2, 0])
    uniforms = torch.rand(5, 5, generator=torch.Generator().manual_seed(0))
    batch = pairs.batch(indices, uniforms)
    partners, shifts = pairs.choices(indices, uniforms)
    for row in range(5):
        for k, (example, (down, across)) in enumerate(
            zip((indices[row], partners[row]), shifts[row].view(2, 2).tolist(), strict=True)
        ):
            expected = torch.zeros(3 * canvas, 3 * canvas)
            top = canvas + (canvas - 6) // 2 + down
            left = canvas + (canvas - 6) // 2 + across
            expected[top : top + 6, left : left + 6] = (10 * int(example) + 5) / 255
            torch.testing.assert_close(batch.originals[row, k, 0], expected[canvas:-canvas, canvas:-canvas])
            assert batch.labels[row, k] == pairs.examples.labels[example]
    torch.testing.assert_close(batch.images, batch.originals.sum(1).clamp(max=1))


def test_bright_pixels_are_clipped() -> None:
    white = Examples(torch.full((2, 1, 6, 6), 255, dtype=torch.uint8), torch.tensor([0, 1]))
    batch = Pairs.of(white, canvas=8, shift=1).batch(torch.tensor([0]), torch.full((1, 5), 0.5))
    assert batch.images.max() == 1
    assert batch.targets(3).tolist() == [[1, 1, 0]]


def test_invalid_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match="at least two classes"):
        Pairs.of(examples([1, 1]))
    with pytest.raises(ValueError, match="do not fit a canvas of 5"):
        Pairs.of(examples([0, 1]), canvas=5)
    with pytest.raises(ValueError, match="without augmentation"):
        Pairs.of(replace(examples([0, 1]), augment=RandomPlacement(9)))
    with pytest.raises(ValueError, match="5 uniform numbers each"):
        Pairs.of(examples([0, 1])).batch(torch.tensor([0]))


def test_boxes_masks_and_overlap() -> None:
    originals = torch.zeros(3, 2, 1, 10, 10)
    originals[:, 0, 0, 2:6, 1:5] = 0.5  # 4×4
    originals[0, 1, 0, 4:9, 3:9] = 1  # shares 2×2 pixels
    originals[1, 1, 0, 3:5, 2:4] = 1  # lies inside
    originals[2, 1, 0, 8:, 8:] = 1  # lies elsewhere
    assert boxes(originals)[0].tolist() == [[2, 1, 6, 5], [4, 3, 9, 9]]
    assert box_overlap(originals).tolist() == [4 / 16, 1, 0]
    assert segmentation(originals).sum((0, 2, 3)).tolist() == [48, 30 + 4 + 4]
    blank = torch.zeros(1, 2, 1, 10, 10)
    assert boxes(blank).eq(0).all()
    assert box_overlap(blank).tolist() == [0]


def table(dataset: Dataset) -> torch.Tensor:
    test = dataset.test
    assert isinstance(test, Frozen)
    assert isinstance(test.source, Pairs)
    partners, shifts = test.source.choices(test.indices, test.uniforms)
    return torch.cat((test.indices[:, None], partners[:, None], shifts), dim=1)


def digest(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.numpy().tobytes()).hexdigest()


def test_multimnist5k_needs_no_network_and_its_test_pairs_never_change() -> None:
    dataset = load("multimnist5k", download=False)
    assert (len(dataset.train), len(dataset.test), dataset.train.draws) == (4000, 10_000, 5)
    assert digest(table(dataset)) == "f7d3081f80f66478a223f42c8052e6fc3689061ea5f92a953f7663a8f2d16483"
    batch = dataset.test.batch(torch.arange(1000))
    assert batch.images.shape == (1000, *dataset.image_shape)
    assert not (batch.labels[:, 0] == batch.labels[:, 1]).any()
    assert 0.70 < float(box_overlap(batch.originals).mean()) < 0.75


@pytest.mark.parametrize(
    ("name", "shift", "frames", "sha256"),
    [
        ("multimnist", 4, 0.80, "339af6886ea09f39a0460abadadebfc756e73f6d352b67cbaa5c79fe82e38cd5"),
        ("multimnist-shift6", 6, 0.72, "f23a937bd1af625d731e399631276a43672232ba4a01420e513d035cd459088d"),
    ],
)
def test_multimnist_from_the_real_digits(
    real_data: Callable[[str], Path], name: str, shift: int, frames: float, sha256: str
) -> None:
    dataset = load(name, real_data("mnist"), download=False)
    assert (len(dataset.train), len(dataset.test)) == (60_000, 10_000)
    choices = table(dataset)
    assert digest(choices) == sha256
    assert choices[:, 0].tolist() == list(range(10_000)), "every test digit once as the first"
    assert choices[:, 2:].unique().tolist() == list(range(-shift, shift + 1))
    apart = (choices[:, 2:4] - choices[:, 4:6]).abs()
    overlap = float(((28 - apart).prod(1) / 28**2).mean())
    assert overlap == pytest.approx(frames, abs=0.005), "the paper: bounding boxes overlap about 80 %"
