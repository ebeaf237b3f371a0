import numpy as np
import pytest
import torch
from torch.nn.functional import one_hot

from capsnet import CapsNetConfig, margin_loss, reconstruction_loss, squash
from capsnet._support.errors import CapsnetError
from capsnet.layers.decoder import Decoder, mask
from capsnet.training.config import TrainConfig, learning_rate


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


@pytest.mark.parametrize("kind", [torch.int32, torch.int64])
def test_mask_takes_classes_of_either_integer_type(kind: torch.dtype) -> None:
    capsules, classes = torch.randn(3, 10, 16), torch.tensor([4, 0, 9])
    assert torch.equal(mask(capsules, classes.to(kind)), mask(capsules, classes))


def test_mask_leaves_one_capsule_in_its_place() -> None:
    capsules = torch.randn(3, 10, 16)
    masked = mask(capsules, torch.tensor([4, 0, 9]))
    expected = capsules.numpy() * one_hot(torch.tensor([4, 0, 9]), 10).numpy()[:, :, None]
    assert masked.shape == (3, 10, 16)
    np.testing.assert_array_equal(masked.numpy(), expected)


def test_decoder_uses_only_the_chosen_capsule_and_its_class() -> None:
    decoder = Decoder(10, 16, (32,), (1, 5, 5))
    capsules = torch.randn(1, 10, 16)
    louder = capsules.clone()
    louder[:, 3] *= 5
    assert torch.equal(decoder(capsules, torch.tensor([2])), decoder(louder, torch.tensor([2])))
    assert not torch.equal(decoder(capsules, torch.tensor([3])), decoder(louder, torch.tensor([3])))
    same = capsules[:, :1].expand(1, 10, 16)
    assert not torch.equal(decoder(same, torch.tensor([2])), decoder(same, torch.tensor([3])))


def test_decoder_masking_gradient() -> None:
    decoder = Decoder(3, 2, (4,), (1, 2, 2)).double()
    # float() in the decoder keeps pixels in float32 under autocast; in float64 it is checked without it
    capsules = torch.randn(2, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda c: decoder.layers(mask(c, torch.tensor([0, 2])).flatten(1)), (capsules,)
    )


def test_paper_schedule_decays_by_4_percent_every_2000_steps_down_to_a_floor() -> None:
    config = TrainConfig(schedule="paper")
    assert learning_rate(config, 0, 300_000) == 0.001
    assert learning_rate(config, 2000, 300_000) == pytest.approx(0.00096)
    assert learning_rate(config, 299_999, 300_000) == pytest.approx(0.001 * 0.96**150, rel=1e-3)
    assert learning_rate(config, 10**6, 10**6) == 1e-6


def test_one_cycle_rises_to_the_peak_and_falls_to_almost_nothing() -> None:
    config = TrainConfig(schedule="one-cycle", learning_rate=0.01)
    rates = [learning_rate(config, step, 100) for step in range(100)]
    assert max(rates) == pytest.approx(0.01, rel=1e-3)
    assert rates.index(max(rates)) == 30
    assert rates[:31] == sorted(rates[:31])
    assert rates[30:] == sorted(rates[30:], reverse=True)
    assert rates[-1] < 1e-6


@pytest.mark.parametrize(
    "options",
    [{"epochs": 0}, {"batch_size": 0}, {"learning_rate": float("nan")}, {"learning_rate": 0}, {"steps": 0}],
)
def test_invalid_training_options_are_refused(options: dict) -> None:
    with pytest.raises(CapsnetError, match=next(iter(options))):
        TrainConfig(**options)


def test_a_too_large_config_is_refused_before_allocating_memory() -> None:
    with pytest.raises(CapsnetError, match="parameters"):
        CapsNetConfig(num_classes=10**9)
