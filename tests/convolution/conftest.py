"""Poisoned memory, and small tensors on the fast paths, for all tests of the convolutions."""

from collections.abc import Iterator

import pytest
from torch import Tensor

from capsnet.convolution import activation, buffers, choice, im2col, winograd


@pytest.fixture(autouse=True)
def poisoned(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every buffer starts as NaN, so that a number that was not written shows."""
    take = buffers.take

    def poison(*shape: int) -> Tensor:
        return take(*shape).fill_(float("nan"))

    for module in (activation, buffers, im2col, winograd):
        monkeypatch.setattr(module, "take", poison, raising=False)
    yield
    buffers.clear()


@pytest.fixture(autouse=True)
def small_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (activation, choice):
        monkeypatch.setattr(module, "LARGE", 1 << 18)
