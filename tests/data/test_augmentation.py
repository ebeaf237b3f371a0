"""Augmentation: what each does to the pixels, and that nothing but the uniform numbers decides it."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import affine_grid, grid_sample, pad

from capsnet.data.augmentation import (
    Affine,
    Augmentation,
    Brightness,
    CenterCrop,
    Compose,
    Contrast,
    Flip,
    RandomCrop,
    RandomPlacement,
    Shift,
    Standardize,
    choose,
)
from capsnet.data.warping import affine_matrices, inverse, sample, warp
from capsnet.explain import translation

ALL = [
    Shift(2),
    RandomCrop(7),
    CenterCrop(7),
    RandomPlacement(20),
    Affine(rotation=20, shear=0.2, scale=(0.8, 1.2), translation=2),
    Flip(),
    Brightness(0.25),
    Contrast(0.2, 1.8),
    Standardize(),
    Compose([RandomCrop(8), Flip(), Standardize()]),
]


def images(batch: int = 6, channels: int = 2, height: int = 11, width: int = 13) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(batch, channels, height, width, generator=generator)


def uniforms(augment: Augmentation, batch: int = 6) -> torch.Tensor:
    return torch.rand(batch, augment.draws, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("augment", ALL, ids=lambda a: type(a).__name__)
def test_an_example_is_augmented_alike_in_any_batch(augment: Augmentation) -> None:
    x, u = images(), uniforms(augment)
    whole = augment(x, u)
    order = torch.tensor([4, 0, 5, 1])
    torch.testing.assert_close(augment(x[order], u[order]), whole[order])
    torch.testing.assert_close(augment(x, u), whole, rtol=0, atol=0)


@pytest.mark.parametrize("augment", ALL, ids=lambda a: type(a).__name__)
def test_autocast_and_the_type_of_the_numbers_change_nothing(augment: Augmentation) -> None:
    x, u = images(), uniforms(augment)
    whole = augment(x, u)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(augment(x, u), whole, rtol=0, atol=0)
    torch.testing.assert_close(augment(x, u.double()), whole)
    half = augment(x.half(), u)
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.float(), whole, rtol=0.01, atol=0.01)


def test_an_image_in_16_bits_is_moved_as_exactly_as_in_32() -> None:
    """A bfloat16 counts to 256; there are 800 pixels here."""
    x = (images(1, 1, 20, 40) * 255).floor()
    for kind in (torch.float16, torch.bfloat16):
        assert torch.equal(translation(3, -2)(x.to(kind)), translation(3, -2)(x).to(kind))
    matrices = affine_matrices(
        rotation=torch.zeros(1),
        shear=torch.zeros(1),
        scale=torch.ones(1, 2),
        translation=torch.tensor([[3.0, -2.0]]),
    )
    assert torch.equal(warp(x, matrices.bfloat16()), warp(x, matrices))


@pytest.mark.quick
@given(m=st.integers(0, 4), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=25, derandomize=True)
def test_shift_is_a_shift_with_zeros(m: int, seed: int) -> None:
    x = images(3, 1, 9, 6)
    u = torch.rand(3, 2, generator=torch.Generator().manual_seed(seed))
    shifted = Shift(m)(x, u)
    for image, result, (a, b) in zip(x, shifted, u, strict=True):
        top, left = int(a * (2 * m + 1)), int(b * (2 * m + 1))
        assert torch.equal(result, pad(image, (m, m, m, m))[:, top : top + 9, left : left + 6])


def test_shift_reaches_both_ends_and_no_further() -> None:
    x = torch.zeros(2, 1, 9, 9)
    x[:, :, 4, 4] = 1
    largest = 1 - 2**-24
    moved = Shift(2)(x, torch.tensor([[0.0, 0.0], [largest, largest]]))
    assert moved[0, 0].nonzero().tolist() == [[6, 6]]
    assert moved[1, 0].nonzero().tolist() == [[2, 2]]


@pytest.mark.parametrize("options", [1, 3, 5, 8, 1000])
def test_choose_is_uniform_and_never_out_of_range(options: int) -> None:
    grid = (torch.arange(options * 16) + 0.5) / (options * 16)
    assert torch.bincount(choose(grid, options), minlength=options).tolist() == [16] * options
    assert choose(torch.tensor([1 - 2**-24]), options).item() == options - 1


def test_crops_and_placement() -> None:
    x = images(2, 1, 11, 13)
    ends = torch.tensor([[0.0, 0.0], [0.999, 0.999]])
    assert torch.equal(RandomCrop(7)(x, ends)[0], x[0, :, :7, :7])
    assert torch.equal(RandomCrop(7)(x, ends)[1], x[1, :, -7:, -7:])
    assert torch.equal(CenterCrop(7)(x), x[:, :, 2:9, 3:10])
    placed = RandomPlacement(20)(x, ends)
    assert torch.equal(placed[0, :, -11:, -13:], x[0])
    assert torch.equal(placed[1, :, :11, :13], x[1])
    torch.testing.assert_close(placed.sum((1, 2, 3)), x.sum((1, 2, 3)))


@pytest.mark.parametrize("augment", [RandomCrop(12), CenterCrop(12), RandomPlacement(12)])
def test_impossible_sizes_are_refused(augment: Augmentation) -> None:
    with pytest.raises(ValueError, match=r"11×13|\(11, 13\)"):
        augment(images(), uniforms(augment))


def test_flip_brightness_contrast() -> None:
    x = images(2)
    half = torch.tensor([[0.0], [0.5]])
    assert torch.equal(Flip()(x, half)[0], x[0].flip(2))
    assert torch.equal(Flip()(x, half)[1], x[1])
    torch.testing.assert_close(
        Brightness(0.2)(x, half) - x, torch.tensor([-0.2, 0.0]).view(2, 1, 1, 1) + 0 * x
    )
    stretched = Contrast(0.5, 1.5)(x, half)
    torch.testing.assert_close(stretched.mean((2, 3)), x.mean((2, 3)))
    torch.testing.assert_close(stretched.std((2, 3)), x.std((2, 3)) * torch.tensor([[0.5], [1.0]]))


def test_standardize_has_mean_0_and_deviation_1_and_survives_a_blank_image() -> None:
    x = torch.cat((images(2), torch.full((1, 2, 11, 13), 0.3)))
    y = Standardize()(x)
    torch.testing.assert_close(y[:2].mean((1, 2, 3)), torch.zeros(2), rtol=0, atol=1e-6)
    torch.testing.assert_close(y[:2].std((1, 2, 3), correction=0), torch.ones(2))
    assert y[2].abs().max() < 1e-4


def test_compose_hands_each_step_its_own_numbers() -> None:
    steps = Compose([RandomCrop(8), Flip(), Brightness(0.1)])
    x, u = images(), uniforms(steps)
    by_hand = Brightness(0.1)(Flip()(RandomCrop(8)(x, u[:, :2]), u[:, 2:3]), u[:, 3:])
    assert steps.draws == 4
    assert torch.equal(steps(x, u), by_hand)


def test_affine_at_the_middle_of_its_ranges_changes_nothing() -> None:
    x = images()
    still = Affine(rotation=20, shear=0.2, scale=(0.8, 1.2), translation=2)(x, torch.full((6, 6), 0.5))
    torch.testing.assert_close(still, x)


@pytest.mark.quick
def test_warp_agrees_with_torch_grid_sample() -> None:
    x = images(channels=1, height=12, width=12).double()
    generator = torch.Generator().manual_seed(3)
    matrices = affine_matrices(
        rotation=torch.rand(6, generator=generator, dtype=torch.float64) * 360,
        shear=torch.rand(6, generator=generator, dtype=torch.float64) - 0.5,
        scale=torch.rand(6, 2, generator=generator, dtype=torch.float64) + 0.5,
        translation=torch.rand(6, 2, generator=generator, dtype=torch.float64) * 6 - 3,
    )
    back = inverse(matrices)
    normalised = back.clone()
    normalised[:, :, 2] *= 2 / 12  # torch's coordinates span the image from −1 to 1
    expected = grid_sample(
        x, affine_grid(normalised, [6, 1, 12, 12], align_corners=False), align_corners=False
    )
    torch.testing.assert_close(warp(x, matrices), expected)


def test_directions_of_the_affine_maps() -> None:
    x = torch.zeros(1, 1, 9, 9)
    x[0, 0, 4, 6] = 1  # two pixels right of the centre
    zero, one = torch.zeros(1), torch.ones(1, 2)

    def moved(**changes: torch.Tensor) -> list[list[int]]:
        options = {"rotation": zero, "shear": zero, "scale": one, "translation": zero[:, None].expand(1, 2)}
        result = warp(x, affine_matrices(**(options | changes)))[0, 0]
        return (result > 0.5).nonzero().tolist()

    assert moved() == [[4, 6]]
    assert moved(rotation=torch.tensor([90.0])) == [[2, 4]]  # counter-clockwise: now above the centre
    assert moved(translation=torch.tensor([[1.0, 2.0]])) == [[6, 7]]  # right by 1, down by 2
    assert moved(scale=torch.tensor([[1.5, 1.0]])) == [[4, 7]]
    x = x.roll((2, -2), (2, 3))  # two below the centre
    assert moved(shear=torch.tensor([0.5])) == [[6, 5]]


def test_inverse_undoes_the_map() -> None:
    matrices = affine_matrices(
        rotation=torch.tensor([33.0]),
        shear=torch.tensor([0.3]),
        scale=torch.tensor([[0.8, 1.3]]),
        translation=torch.tensor([[1.0, -2.0]]),
    ).double()
    bottom = torch.tensor([[[0.0, 0.0, 1.0]]], dtype=torch.float64)
    product = torch.cat((matrices, bottom), 1) @ torch.cat((inverse(matrices), bottom), 1)
    torch.testing.assert_close(product[0], torch.eye(3, dtype=torch.float64))


def test_sampling_is_exact_for_quantised_matrices() -> None:
    """Every sum in another order must give the same bits: the hashes of the frozen test sets rest on this."""
    x = torch.randint(0, 256, (1, 1, 8, 8), generator=torch.Generator().manual_seed(0)).double()
    angle = math.radians(17)
    back = torch.tensor(
        [[[math.cos(angle), math.sin(angle), 0.3], [-math.sin(angle), math.cos(angle), -1.7]]]
    )
    back = (back.double() * 2**16).round() / 2**16
    result = sample(x, back, (8, 8))
    for i in range(8):
        for j in range(8):
            # The same in integers: coordinates in units of 2⁻¹⁷, weights of 2⁻³⁴.
            a, b, c, d, e, f = (int(v * 2**16) for v in (*back[0, 0], *back[0, 1]))
            across = a * (2 * j - 7) + b * (2 * i - 7) + 2 * c + 7 * 2**16
            down = d * (2 * j - 7) + e * (2 * i - 7) + 2 * f + 7 * 2**16
            left, dx = divmod(across, 2**17)
            top, dy = divmod(down, 2**17)
            total = 0
            for r, wy in ((top, 2**17 - dy), (top + 1, dy)):
                for s, wx in ((left, 2**17 - dx), (left + 1, dx)):
                    if 0 <= r < 8 and 0 <= s < 8:
                        total += int(x[0, 0, r, s]) * wx * wy
            assert float(result[0, 0, i, j]) * 2**34 == total
