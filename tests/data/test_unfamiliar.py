"""Images that are no digits: fixed, and placed as MNIST's digits are."""

import torch

from capsnet.data.unfamiliar import ANGLES, FONTS, LETTERS, letters, noise


def test_letters_are_placed_like_digits() -> None:
    found = letters()
    assert len(found) == len(LETTERS) * len(FONTS) * len(ANGLES)
    assert torch.bincount(found.labels).tolist() == [len(FONTS) * len(ANGLES)] * len(LETTERS)
    ink = found.images[:, 0].double()
    assert ink.amax(dim=(1, 2)).min() > 200, "every letter was drawn"
    rows, columns = (ink.sum(axis) > 0 for axis in (2, 1))
    assert torch.maximum(rows.sum(1), columns.sum(1)).max() <= 20
    middle = (ink.sum(2) * torch.arange(28)).sum(1) / ink.sum((1, 2))
    assert (middle - 13.5).abs().max() < 1.5
    assert torch.equal(found.images, letters().images)


def test_noise_is_fixed_and_uniform() -> None:
    pixels = noise(100).images
    assert torch.equal(pixels[:3], noise(3).images)
    assert abs(float(pixels.double().mean()) - 127.5) < 1
