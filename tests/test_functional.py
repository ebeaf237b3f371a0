import numpy as np
import pytest
import torch

from capsnet import margin_loss, reconstruction_loss, squash


def numpy_squash(s: np.ndarray) -> np.ndarray:
    squared = (s**2).sum(-1, keepdims=True)
    return squared / (1 + squared) * s / np.sqrt(squared)


def numpy_margin_loss(lengths: np.ndarray, targets: np.ndarray) -> float:
    total = 0.0
    for row, target in zip(lengths, targets, strict=True):
        for length, present in zip(row, target, strict=True):
            total += present * max(0, 0.9 - length) ** 2 + 0.5 * (1 - present) * max(0, length - 0.1) ** 2
    return total / len(lengths)


def test_squash_is_equation_1() -> None:
    s = np.random.default_rng(0).normal(size=(5, 7, 3)) * 10 ** np.linspace(-3, 3, 7)[:, None]
    torch.testing.assert_close(
        squash(torch.from_numpy(s)), torch.from_numpy(numpy_squash(s)), rtol=1e-13, atol=0
    )


def test_squash_keeps_direction_and_stays_below_length_1() -> None:
    s = torch.randn(100, 16, dtype=torch.float64) * 100
    v = squash(s)
    assert (v.norm(dim=-1) < 1).all()
    torch.testing.assert_close(v / v.norm(dim=-1, keepdim=True), s / s.norm(dim=-1, keepdim=True))


def test_squash_in_16_bits_is_that_of_float32_rounded_once() -> None:
    for dtype in (torch.float16, torch.bfloat16):
        s = (torch.randn(500, 16) * torch.logspace(-2, 2, 500)[:, None]).to(dtype)
        assert torch.equal(squash(s), squash(s.float()).to(dtype))


def test_squash_works_along_any_axis() -> None:
    s = torch.randn(4, 16, 3)
    torch.testing.assert_close(squash(s, dim=1), squash(s.transpose(1, 2)).transpose(1, 2))


def test_squash_of_zero_has_a_finite_gradient() -> None:
    s = torch.zeros(2, 3, requires_grad=True)
    squash(s).sum().backward()
    assert torch.equal(s.grad, torch.zeros(2, 3))


def test_squash_gradient() -> None:
    s = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(squash, (s,))


def test_margin_loss_is_equation_4_with_any_number_of_classes_present() -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.rand(50, 10, generator=generator, dtype=torch.float64, requires_grad=True)
    targets = (torch.rand(50, 10, generator=generator) < 0.2).double()
    expected = numpy_margin_loss(lengths.detach().numpy(), targets.numpy())
    assert margin_loss(lengths, targets).item() == pytest.approx(expected, rel=1e-12)
    assert torch.autograd.gradcheck(lambda x: margin_loss(x, targets), (lengths,))


def test_margin_loss_is_zero_when_all_capsules_are_within_their_margins() -> None:
    lengths = torch.tensor([[0.95, 0.05, 0.1]])
    assert margin_loss(lengths, torch.tensor([[1.0, 0.0, 0.0]])) == 0
    assert margin_loss(lengths, torch.tensor([[0.0, 1.0, 0.0]])) > 0


@pytest.mark.misuse
def test_margin_loss_refuses_class_indices() -> None:
    with pytest.raises(ValueError, match="0/1 per class"):
        margin_loss(torch.rand(4, 10), torch.tensor([1, 2, 3, 4]))


@pytest.mark.misuse
def test_reconstruction_loss_is_a_sum_over_pixels() -> None:
    images = torch.zeros(2, 1, 28, 28)
    assert reconstruction_loss(images + 0.5, images) == 784 * 0.25
    with pytest.raises(ValueError, match="differ in shape"):
        reconstruction_loss(images, images.flatten(1))


def test_an_empty_batch_costs_nothing() -> None:
    lengths = torch.zeros(0, 10, requires_grad=True)
    loss = margin_loss(lengths, torch.zeros(0, 10)) + reconstruction_loss(lengths, torch.zeros(0, 10))
    loss.backward()
    assert loss == 0
    assert lengths.grad.shape == (0, 10)
