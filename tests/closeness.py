"""How tests compare a fast path with the plain one: outputs and gradients, in float64."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

TOLERANCE = 1e-5  # relative, norm by norm


def relative(found: Tensor, expected: Tensor) -> float:
    found, expected = found.detach(), expected.detach()
    return float((found.double() - expected).norm() / expected.norm().clamp_min(1e-30))


def gradients(function, tensors: list[Tensor], wanted: list[int] | None = None) -> list[Tensor]:
    """Outputs, then the gradients of a fixed weighting of them."""
    y = function(*tensors)
    weighting = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float32)
    inputs = tensors if wanted is None else [tensors[i] for i in wanted]
    return [y.detach(), *torch.autograd.grad(y, inputs, weighting.to(y.dtype))]


def double(tensors: list[Tensor]) -> list[Tensor]:
    return [tensor.detach().double().requires_grad_() for tensor in tensors]


def assert_same(found: list[Tensor], expected: list[Tensor]) -> None:
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        assert relative(a, b) < TOLERANCE


@contextmanager
def poisoned() -> Iterator[None]:
    """Fresh tensors hold NaN, so that a number that is never written shows."""
    torch.use_deterministic_algorithms(True)  # torch.utils.deterministic.fill_uninitialized_memory is on
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)
