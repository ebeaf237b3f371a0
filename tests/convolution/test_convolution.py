"""The fast stem against the library's convolutions in float64: outputs, gradients, and what must not happen."""

from __future__ import annotations

import copy
import gc
import multiprocessing
import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from capsnet import PrimaryCapsules
from capsnet._support import dispatch as switch
from capsnet.convolution import buffers, cache, conv2d, features, inference, reference, winograd
from capsnet.convolution.autograd import Conv2d, Stem
from capsnet.convolution.cost import Choice, choose

TOLERANCE = 1e-5  # relative, norm by norm
Pair = tuple[int, int]


def relative(found: Tensor, expected: Tensor) -> float:
    found, expected = found.detach(), expected.detach()
    return float((found.double() - expected).norm() / expected.norm().clamp_min(1e-30))


def make(shape: tuple[int, ...], stem: int, k1: int, out: int, k2: int, seed: int = 0) -> list[Tensor]:
    """Images, then weights and biases of both convolutions, all wanting gradients.

    Conv1 computes with multiples of 1/512 that float32 adds up exactly, and none of its sums is 0: a ReLU that
    rounding pushes to the other side would change gradients by more than the tolerance, in any implementation.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*sizes: int) -> Tensor:
        return torch.randn(*sizes, generator=generator)

    def sixteenths(low: int, *sizes: int) -> Tensor:
        return torch.randint(low, 17, sizes, generator=generator) / 16

    tensors = [
        sixteenths(0, *shape),
        sixteenths(-16, stem, shape[1], k1, k1),
        sixteenths(-16, stem) + 1 / 512,
        normal(out, stem, k2, k2) / (stem * k2 * k2) ** 0.5,
        normal(out) / 5,
    ]
    return [tensor.requires_grad_() for tensor in tensors]


def gradients(function, tensors: list[Tensor], *options, wanted=(0, 1, 2, 3, 4)) -> list[Tensor]:
    """Outputs, then the gradients of a fixed weighting of them."""
    y = function(*tensors, *options)
    weighting = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float32)
    found = torch.autograd.grad(y, [tensors[i] for i in wanted], weighting.to(y.dtype))
    return [y.detach(), *found]


def double(tensors: list[Tensor]) -> list[Tensor]:
    return [tensor.detach().double().requires_grad_() for tensor in tensors]


def assert_same(found: list[Tensor], expected: list[Tensor]) -> None:
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        assert relative(a, b) < TOLERANCE


@pytest.fixture
def paper() -> list[Tensor]:
    return make((24, 1, 28, 28), 256, 9, 256, 9)


@pytest.fixture
def small() -> list[Tensor]:
    """Fewer channels, and the fast path all the same."""
    return make((24, 1, 28, 28), 64, 9, 128, 9)


@pytest.fixture(autouse=True)
def poisoned(monkeypatch):
    """Every buffer starts as NaN, so that a number no one wrote shows."""
    take = buffers.take

    def poison(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return take(*shape, dtype=dtype).fill_(float("nan") if dtype == torch.float32 else 255)

    monkeypatch.setattr(buffers, "take", poison)


@pytest.mark.quick
def test_paper_geometry_takes_the_fast_path_and_matches_float64(paper):
    found = gradients(features, paper)
    assert not torch.equal(found[0], reference.features(*paper)), "the library's path was taken"
    assert_same(found, gradients(reference.features, double(paper)))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    height=st.integers(13, 23),
    width=st.integers(13, 23),
    k1=st.sampled_from([(3, 1), (5, 2), (4, 1)]),
    k2=st.sampled_from([(5, 2), (6, 2), (7, 2), (7, 3), (5, 1), (2, 1)]),
    channels=st.integers(1, 3),
    stem=st.sampled_from([1, 31, 32, 70, 129]),
    out=st.sampled_from([1, 5, 40]),
    batch=st.integers(1, 6),
)
def test_any_geometry_matches_float64(height, width, k1, k2, channels, stem, out, batch):
    rows, columns = ((size - k1[0]) // k1[1] + 1 for size in (height, width))
    if (
        min((n - k2[0]) // k2[1] + -(-k2[0] // k2[1]) for n in (rows, columns)) < 3
        or min(rows, columns) < k2[0]
    ):
        return
    tensors = make((batch, channels, height, width), stem, k1[0], out, k2[0])
    strides = (k1[1], k1[1]), (k2[1], k2[1])
    expected = gradients(reference.features, double(tensors), *strides)
    assert_same(gradients(Stem.apply, tensors, *strides), expected)
    with torch.no_grad():
        for choice in (Choice.POINTS, Choice.PATCHES):
            assert relative(inference.stem(*tensors, strides, choice), expected[0]) < TOLERANCE


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    height=st.integers(9, 20),
    width=st.integers(9, 20),
    kernel=st.tuples(st.integers(3, 9), st.integers(3, 9)),
    stride=st.integers(1, 3),
    channels=st.sampled_from([1, 33, 64, 100]),
    bias=st.booleans(),
)
def test_a_convolution_alone_matches_float64(height, width, kernel, stride, channels, bias):
    if min((n - k) // stride + -(-k // stride) for n, k in ((height, kernel[0]), (width, kernel[1]))) < 3:
        return
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(3, channels, height, width, generator=generator)]
    tensors += [torch.randn(7, channels, *kernel, generator=generator)]
    tensors += [torch.randn(7, generator=generator)] * bias
    tensors = [tensor.requires_grad_() for tensor in tensors]
    rest = [] if bias else [None]
    wanted = range(len(tensors))
    expected = gradients(lambda *t: F.conv2d(*t, stride=stride), double(tensors), wanted=wanted)
    pair = (stride, stride)
    assert_same(gradients(lambda *t: Conv2d.apply(*t, *rest, pair), tensors, wanted=wanted), expected)
    with torch.no_grad():
        for choice in (Choice.POINTS, Choice.PATCHES):
            assert relative(inference.conv2d(*tensors, *rest, pair, choice), expected[0]) < TOLERANCE


@pytest.mark.parametrize(
    ("size", "channels", "stem", "out"),
    [(36, 1, 128, 256), (40, 1, 64, 128), (32, 2, 128, 256), (24, 3, 128, 512)],
)
def test_other_data_sets(size, channels, stem, out):
    tensors = make((16, channels, size, size), stem, 9, out, 9)
    strides = (1, 1), (2, 2)
    expected = gradients(reference.features, double(tensors), *strides)
    assert_same(gradients(Stem.apply, tensors, *strides), expected)
    assert_same(gradients(features, tensors), expected)


def test_layouts_that_are_not_contiguous(small):
    images = (
        small[0].detach().new_zeros(24, 28, 28, 1).copy_(small[0].permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    )
    kernel = small[3].detach().to(memory_format=torch.channels_last).requires_grad_()
    turned = [images.requires_grad_(), small[1], small[2], kernel, small[4]]
    sliced = torch.rand(48, 1, 28, 56)[::2, :, :, ::2].requires_grad_()
    for tensors in (turned, [sliced, *small[1:]]):
        assert_same(gradients(features, tensors), gradients(reference.features, double(tensors)))
    y, z = features(*small), reference.features(*small)
    broadcast = torch.ones(1).expand_as(y)
    assert (
        relative(
            torch.autograd.grad(y, small[3], broadcast)[0],
            torch.autograd.grad(z, small[3], broadcast)[0].double(),
        )
        < TOLERANCE
    )


@pytest.mark.parametrize("wanted", [(0,), (1,), (2,), (3,), (4,), (0, 4), (1, 3)])
def test_only_the_gradients_that_are_wanted(small, wanted):
    expected = gradients(reference.features, small, wanted=wanted)
    for i, tensor in enumerate(small):
        tensor.requires_grad_(i in wanted)
    found = gradients(features, small, wanted=wanted)
    assert_same(found, [tensor.double() for tensor in expected])


def test_gradients_can_be_differentiated():
    tensors = make((24, 1, 28, 28), 64, 9, 128, 9)

    def penalty(function) -> list[Tensor]:
        (slope,) = torch.autograd.grad(function(*tensors).square().sum(), tensors[0], create_graph=True)
        return list(torch.autograd.grad(slope.square().sum(), [tensors[1], tensors[3]]))

    strides = (1, 1), (2, 2)
    expected = penalty(lambda *t: reference.features(*t, *strides))
    assert_same(penalty(lambda *t: Stem.apply(*t, *strides)), [tensor.double() for tensor in expected])


def test_same_bits_again_and_the_same_images_alone(small):
    with torch.no_grad():
        first, again = features(*small), features(*small)
        alone = torch.cat([features(image[None], *small[1:]) for image in small[0]])
    assert torch.equal(first, again)
    assert relative(alone, first.double()) < TOLERANCE
    a, b = gradients(features, small), gradients(features, small)
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_inference_in_slices_equals_one_image_set(small):
    images = torch.rand(150, 1, 28, 28)
    with torch.no_grad():
        whole = features(images, *small[1:])
        parts = [features(images[:128], *small[1:]), features(images[128:], *small[1:])]
    assert relative(whole, torch.cat(parts).double()) < TOLERANCE


@pytest.mark.parametrize(
    "change",
    ["in place", "through .data", "exchange", "mirrored", "moved inwards", "last bit", "other tensor"],
)
def test_inference_sees_new_weights(small, change):
    """Mirrored and moved inwards are changes that leave Σ word · (2i + 1) as it was."""
    weight, words = small[3].data, small[3].data.view(-1).view(torch.int32)
    if change == "mirrored":
        weight[64:] = weight[:64].flip(-1)
    elif change == "moved inwards":
        weight.view(-1)[[1000, 2003]] = weight.view(-1)[[1000, 1000]]
        weight.view(-1)[[1001, 2002]] = 0
    with torch.no_grad():
        features(*small)
        if change == "in place":
            small[3].mul_(2)
        elif change == "through .data":
            small[3].data.mul_(2)  # what moving averages of weights do; the version counter does not see it
        elif change == "exchange":
            weight[:, [0, 1], 4, 4] = weight[:, [1, 0], 4, 4]
        elif change == "mirrored":
            weight.copy_(weight.flip(-1))
        elif change == "moved inwards":
            words[[1000, 1001, 2002, 2003]] = words[[1001, 1000, 2003, 2002]]
        elif change == "last bit":
            words[-1] ^= 1
        else:
            small[3] = small[3] * 2
        after = features(*small)
        cache.clear()
        assert torch.equal(after, features(*small))
        expected = reference.features(*(tensor.double() for tensor in small))
        assert relative(after, expected) < TOLERANCE


def kept() -> weakref.ref[torch.UntypedStorage]:
    """The planes that inference keeps of the last kernel."""
    assert cache._last is not None
    (planes,) = cache._last._planes.values()
    return weakref.ref(planes.storage.untyped_storage())


@pytest.mark.parametrize("scale", [1.0, 1 / 32])
@torch.no_grad()
def test_what_inference_keeps_of_a_kernel_goes_with_it(scale):
    model, images = PrimaryCapsules(1, 64, 16, 8, scale=scale), torch.rand(24, 1, 28, 28)
    model(images)
    entry, planes = cache._last, kept()
    model(images)
    assert cache._last is entry
    assert cache.prepared(model.conv2.weight.detach()) is entry
    del entry
    gc.collect()
    idle, memory = buffers.idle_bytes(), model.conv2.weight.detach()
    del model
    gc.collect()
    assert planes() is not None
    del memory
    gc.collect()
    assert planes() is None
    assert cache._last is None
    assert buffers.idle_bytes() == idle, "the pool holds on to them"


@torch.no_grad()
def test_what_inference_keeps_of_a_kernel_is_the_last_ones_to_use_it():
    model, images = PrimaryCapsules(1, 64, 16, 8), torch.rand(24, 1, 28, 28)
    model(images)
    twin, planes = copy.deepcopy(model), kept()
    twin(images)
    del model
    gc.collect()
    assert planes() is not None
    twin.conv2.weight.data = torch.randn(128, 64, 9, 9)
    gc.collect()
    assert planes() is None


def test_inference_mode_and_frozen_parameters(small):
    expected = reference.features(*(tensor.detach().double() for tensor in small))
    with torch.inference_mode():
        assert relative(features(*small), expected) < TOLERANCE
    frozen = [tensor.detach() for tensor in small]
    assert not features(*frozen).requires_grad


def test_two_live_graphs_share_nothing(small):
    other = make((24, 1, 28, 28), 64, 9, 128, 9, seed=5)
    expected = [gradients(features, small), gradients(features, other)]
    y, z = features(*small), features(*other)
    weighting = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    for output, tensors, right in ((y, small, expected[0]), (z, other, expected[1])):
        found = torch.autograd.grad(output, tensors, weighting, retain_graph=True)
        assert all(torch.equal(a, b) for a, b in zip(found, right[1:], strict=True))
        again = torch.autograd.grad(output, tensors, weighting)
        assert all(torch.equal(a, b) for a, b in zip(again, right[1:], strict=True))


def test_python_threads_at_once(small):
    inputs = [make((24, 1, 28, 28), 64, 9, 128, 9, seed=seed) for seed in range(3)]
    expected = [gradients(features, tensors) for tensors in inputs]
    found: dict[int, list[list[Tensor]]] = {}

    def train(i: int) -> None:
        found[i] = [gradients(features, inputs[i]) for _ in range(2)]

    threads = [threading.Thread(target=train, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, right in enumerate(expected):
        for result in found[i]:
            assert_same(result, [tensor.double() for tensor in right])


def test_the_number_of_threads_is_left_alone_and_one_thread_works(small):
    expected, threads = gradients(features, small), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert_same(gradients(features, small), [tensor.double() for tensor in expected])
        torch.set_num_threads(3)
        assert_same(gradients(features, small), [tensor.double() for tensor in expected])
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)


def test_memory_does_not_grow(small):
    def step() -> None:
        gradients(features, small)
        with torch.no_grad():
            features(*small)

    step()
    gc.collect()
    before = buffers.idle_bytes()
    for _ in range(3):
        step()
    gc.collect()
    assert buffers.idle_bytes() == before > 0
    for batch in range(25, 33):  # every size needs other buffers; the idle ones stay bounded
        features(torch.rand(batch, 1, 28, 28), *small[1:])
    assert buffers.idle_bytes() <= buffers.KEEP
    buffers.clear()
    assert buffers.idle_bytes() == 0


def test_a_buffer_lives_as_long_as_its_views():
    buffers.clear()
    lent = buffers.take(1 << 20)
    part = lent[:10]
    del lent
    assert buffers.idle_bytes() == 0
    del part
    gc.collect()
    assert buffers.idle_bytes() >= 4 << 20
    assert buffers.take(1 << 20).data_ptr() % 64 == 0
    buffers.clear()


def _take_in_child(connection: Any) -> None:
    connection.send(len(buffers.take(10)))


@pytest.mark.skipif(not hasattr(os, "register_at_fork"), reason="no processes are forked here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_fork_while_a_thread_takes_a_buffer():
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with buffers._lock:
            held.set()
            release.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=_take_in_child, args=(theirs,))
    child.start()
    release.set()
    thread.join()
    try:
        assert ours.poll(60), "the forked process hangs"
        assert ours.recv() == 10
    finally:
        child.kill()
        child.join()


def test_switched_off(small, monkeypatch):
    plain = reference.features(*small)
    assert torch.equal(features(*small, fast=False), plain)
    with switch.disabled():
        assert torch.equal(features(*small), plain)
    monkeypatch.setenv("CAPSNET_FAST", "0")
    assert torch.equal(features(*small), plain)


def test_other_types_take_the_library(small):
    exact = double(small)
    assert torch.equal(features(*exact), reference.features(*exact))
    with torch.autocast("cpu", torch.bfloat16):
        assert features(*small).dtype == torch.bfloat16
    half = [tensor.detach().bfloat16() for tensor in small]
    assert torch.equal(features(*half), reference.features(*half))


@contextmanager
def default(choice: torch.dtype | str) -> Iterator[None]:
    if isinstance(choice, str):
        with torch.device(choice):
            yield
        return
    before = torch.get_default_dtype()
    torch.set_default_dtype(choice)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@pytest.mark.parametrize("choice", [torch.float64, torch.bfloat16, "meta"])
def test_defaults_for_new_tensors_change_nothing(choice):
    tensors = make((24, 1, 28, 28), 64, 9, 128, 9)
    one = make((1, 1, 28, 28), 256, 9, 256, 9)  # a product of patches
    hidden = torch.rand(24, 64, 20, 20, requires_grad=True)
    weighting = torch.rand(24, 128, 6, 6)

    def everything() -> list[Tensor]:
        found = []
        for y, wanted in (
            (features(*tensors), tensors),
            (conv2d(hidden, *tensors[3:], 2), [hidden, *tensors[3:]]),
        ):
            found += [y.detach(), *torch.autograd.grad(y, wanted, weighting)]
        cache.clear()
        with torch.no_grad():
            return [*found, features(*tensors), conv2d(hidden, *tensors[3:], 2), features(*one)]

    expected = everything()
    with default(choice):
        found = everything()
    for a, b in zip(found, expected, strict=True):
        assert (a.dtype, a.device) == (torch.float32, torch.device("cpu"))
        assert torch.equal(a, b)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # by torch.func.jvp
def test_transforms_and_tracing_take_the_library(small):
    plain = [tensor.detach() for tensor in small]
    expected = reference.features(*plain)
    per_image = torch.func.vmap(lambda image: features(image[None], *plain[1:])[0])(plain[0])
    assert relative(per_image, expected.double()) < TOLERANCE
    _, slope = torch.func.jvp(lambda images: features(images, *plain[1:]), (plain[0],), (plain[0],))
    assert slope.shape == expected.shape
    exported = torch.export.export(_Stem(plain), (plain[0],)).module()
    assert relative(exported(plain[0]), expected.double()) < TOLERANCE


class _Stem(torch.nn.Module):
    def __init__(self, tensors: list[Tensor]) -> None:
        super().__init__()
        self.parameters_ = torch.nn.ParameterList(tensors[1:])

    def forward(self, images: Tensor) -> Tensor:
        return features(images, *self.parameters_)


def test_compiles_into_one_graph(small):
    compiled = torch.compile(
        _Stem([tensor.detach() for tensor in small]), fullgraph=True, backend="aot_eager"
    )
    assert relative(compiled(small[0]), reference.features(*small).detach().double()) < TOLERANCE


def test_nan_is_not_hidden(small):
    images = small[0].detach().clone()
    images[3, 0, 5, 5] = float("nan")
    y = features(images, *small[1:])
    assert y[3].isnan().any()
    assert not y[[0, 1, 2, *range(4, 24)]].isnan().any()


@pytest.mark.parametrize("shape", [(24, 2, 28, 28), (24, 1, 8, 28), (1, 28, 28)])
def test_shapes_that_do_not_fit_are_the_librarys_to_explain(small, shape):
    if len(shape) == 3:
        assert features(torch.rand(shape), *small[1:]).shape == (128, 6, 6)
    else:
        with pytest.raises(RuntimeError, match="size"):
            features(torch.rand(shape), *small[1:])


def test_a_kernel_that_is_not_square():
    tensors = [torch.rand(24, 1, 28, 28), torch.randn(64, 1, 1, 9), torch.randn(64)]
    tensors += [torch.randn(128, 64, 9, 9), torch.randn(128)]
    assert relative(features(*tensors), reference.features(*double(tensors))) < TOLERANCE
    tensors[1] = torch.randn(64, 1, 1, 21)  # leaves 28 rows, but 8 columns
    with pytest.raises(RuntimeError, match="size"):
        features(*tensors)


def test_the_rule_prefers_the_library_where_little_is_to_win():
    weight = (256, 256, 9, 9)
    assert choose(128, 20, 20, weight, 2, True) is Choice.POINTS
    assert choose(128, 20, 20, weight, 2, False) is Choice.POINTS
    assert choose(8, 20, 20, weight, 2, False) is Choice.POINTS
    assert choose(1, 20, 20, weight, 2, False) in (Choice.PATCHES, Choice.LIBRARY)
    library = [
        choose(1, 20, 20, weight, 2, True),
        choose(128, 20, 20, (256, 256, 3, 3), 1, True),
        choose(128, 20, 20, (8, 1, 9, 9), 2, True),
        choose(0, 20, 20, weight, 2, True),
        choose(128, 9, 9, (256, 256, 9, 9), 9, True),  # one tap per phase: nothing to save
        choose(128, 200, 200, weight, 2, True),  # planes of gigabytes
    ]
    assert set(library) == {Choice.LIBRARY}


@pytest.mark.parametrize("images", [1, 3, 8, 24])
def test_the_same_images_give_the_same_bits_whatever_was_computed_before(images):
    x, *rest = [tensor.detach() for tensor in make((24, 1, 28, 28), 256, 9, 256, 9)]
    cache.clear()
    first = features(x[:images], *rest)
    again = features(x[:images], *rest)
    features(x, *rest)
    after = features(x[:images], *rest)
    assert torch.equal(first, again)
    assert torch.equal(first, after)
    assert relative(first, reference.features(x[:images], *rest).double()) < TOLERANCE
    cache.clear()


def test_the_algorithm_saves_what_it_promises():
    plan = winograd.plan(20, 20, (9, 9), (2, 2))
    assert (plan.planes, plan.products) == (142, 517)  # in place of 36 · 81 = 2916
    with pytest.raises(ValueError, match="no fast algorithm"):
        winograd.plan(4, 20, (9, 9), (2, 2))


def test_conv2d_picks_as_features_does():
    x, weight, bias = torch.rand(64, 128, 20, 20), torch.randn(128, 128, 9, 9), torch.randn(128)
    expected = F.conv2d(x.double(), weight.double(), bias.double(), 2)
    assert relative(conv2d(x, weight, bias, 2), expected) < TOLERANCE
    assert not torch.equal(conv2d(x, weight, bias, 2), F.conv2d(x, weight, bias, 2))
    assert torch.equal(conv2d(x, weight, bias, 2, fast=False), F.conv2d(x, weight, bias, 2))
    cache.clear()


def test_gradients_of_the_stem_may_come_in_batches() -> None:
    x = torch.randn(32, 64, 20, 20, requires_grad=True)
    weight = torch.randn(64, 64, 9, 9)
    assert choose(32, 20, 20, weight.shape, 2, train=True) is not Choice.LIBRARY
    directions = torch.randn(2, 32, 64, 6, 6)
    found, expected = (
        torch.autograd.grad(conv2d(x, weight, None, 2, fast=fast), x, directions, is_grads_batched=True)[0]
        for fast in (None, False)
    )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)
