"""The ReLU in reused memory equals PyTorch's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from capsnet.convolution import relu

SHAPE = (8, 64, 32, 32)


def plain(x: Tensor, scale: float) -> Tensor:
    return F.relu(x) * scale


@pytest.mark.parametrize("scale", [1.0, 0.25, 0.0, -2.0])
@pytest.mark.parametrize("layout", ["contiguous", "channels last", "sliced", "flat", "small"])
def test_outputs_and_gradients_are_pytorchs(scale: float, layout: str) -> None:
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    x[0, 0, 0, :3] = torch.tensor([float("nan"), float("inf"), 0.0])
    x = {
        "contiguous": x,
        "channels last": x.to(memory_format=torch.channels_last),
        "sliced": torch.cat([x, x], 3)[..., ::2],
        "flat": x.flatten(),
        "small": x[0, 0],
    }[layout].requires_grad_()
    gradient = torch.randn(x.shape)
    results = [(y, *torch.autograd.grad(y, x, gradient)) for y in (relu(x, scale), plain(x, scale))]
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
    with torch.no_grad():
        torch.testing.assert_close(relu(x, scale), plain(x, scale), rtol=0, atol=0, equal_nan=True)


def test_the_input_is_left_alone() -> None:
    x = torch.randn(SHAPE)
    before = x.clone()
    relu(x)
    assert torch.equal(x, before)


@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_gradients_can_be_differentiated_and_come_in_batches(scale: float) -> None:
    x, directions = torch.randn(SHAPE, requires_grad=True), torch.randn(2, *SHAPE)

    def gradients(function: Callable[[Tensor, float], Tensor]) -> list[Tensor]:
        (slope,) = torch.autograd.grad(function(x.square(), scale).square().sum(), x, create_graph=True)
        in_batches = torch.autograd.grad(function(x, scale), x, directions, is_grads_batched=True)
        return [*torch.autograd.grad(slope.sum(), x), *in_batches]

    torch.testing.assert_close(gradients(relu), gradients(plain), rtol=1e-6, atol=0)
