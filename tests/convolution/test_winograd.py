"""The algorithms against the library's convolution in float64, in any geometry."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from capsnet.convolution.choice import Algorithm
from capsnet.convolution.fast_conv2d import Convolution
from capsnet.convolution.im2col import Im2col
from capsnet.convolution.winograd import axis, winograd
from closeness import TOLERANCE, assert_same, double, gradients, relative

Pair = tuple[int, int]
KERNELS = st.tuples(st.integers(1, 9), st.integers(1, 9))
STRIDES = st.tuples(st.integers(1, 3), st.integers(1, 3))
SIZES = st.tuples(st.integers(9, 20), st.integers(9, 20))


@pytest.mark.quick
@pytest.mark.parametrize("samples", [3, 4, 5, 6, 7, 8, 9, 10, 14, 24, 25, 60])
def test_one_axis_equals_the_sum_of_its_definition(samples: int) -> None:
    generator = np.random.default_rng(0)
    for taps in {1, 2, samples // 2, samples - 1}:
        found = axis(samples, taps, 1)
        d, g = generator.standard_normal(samples), generator.standard_normal(taps)
        evaluated = (found.weight.double().numpy() @ g) * (found.input.double().numpy() @ d)
        y = found.output.double().numpy().T @ evaluated
        expected = np.correlate(d, g, "valid")
        assert np.linalg.norm(y - expected) < TOLERANCE * np.linalg.norm(d) * np.linalg.norm(g)


def test_the_papers_convolution_takes_a_sixth_of_the_multiplications() -> None:
    algorithm = winograd((20, 20), (9, 9), (2, 2))
    assert 6 * algorithm.planes * 2 * 2 <= 36 * 81


def test_an_axis_that_is_too_short_has_no_algorithm() -> None:
    with pytest.raises(ValueError, match="no fast algorithm"):
        winograd((4, 20), (9, 9), (2, 2))


def check(algorithm: Algorithm, size: Pair, kernel: Pair, channels: int, bias: bool, out: int = 7) -> None:
    """Compare outputs and gradients."""
    generator = torch.Generator().manual_seed(0)
    tensors = [
        torch.randn(3, channels, *size, generator=generator),
        torch.randn(out, channels, *kernel, generator=generator),
        *[torch.randn(out, generator=generator)] * bias,
    ]
    tensors = [tensor.requires_grad_() for tensor in tensors]

    def fast(x: Tensor, weight: Tensor, shift: Tensor | None = None) -> Tensor:
        return Convolution.apply(x, weight, shift, algorithm)

    expected = gradients(partial(F.conv2d, stride=algorithm.stride), double(tensors))
    assert_same(gradients(fast, tensors), expected)
    with torch.no_grad():
        assert relative(fast(*tensors), expected[0]) < TOLERANCE


@settings(max_examples=25, deadline=None, derandomize=True)
@given(size=SIZES, kernel=KERNELS, stride=STRIDES, channels=st.sampled_from([1, 5, 33]), bias=st.booleans())
def test_winograd_matches_float64(size: Pair, kernel: Pair, stride: Pair, channels: int, bias: bool) -> None:
    assume(all((n - k) // s + -(-k // s) >= 3 for n, k, s in zip(size, kernel, stride, strict=True)))
    check(winograd(size, kernel, stride), size, kernel, channels, bias)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(size=SIZES, kernel=KERNELS, stride=STRIDES, channels=st.sampled_from([1, 2, 5]), bias=st.booleans())
def test_im2col_matches_float64(size: Pair, kernel: Pair, stride: Pair, channels: int, bias: bool) -> None:
    check(Im2col(stride), size, kernel, channels, bias)


@pytest.mark.parametrize(
    ("size", "channels", "out"), [(28, 128, 256), (32, 64, 128), (24, 128, 256), (16, 128, 512)]
)
def test_the_sizes_of_other_data_sets(size: int, channels: int, out: int) -> None:
    check(winograd((size, size), (9, 9), (2, 2)), (size, size), (9, 9), channels, True, out)
