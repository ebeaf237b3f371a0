"""`FastConv2d` against `F.conv2d` in float64, and where it must use the library's convolution."""

from __future__ import annotations

import copy
import gc
import io
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from capsnet._support import dispatch
from capsnet.convolution import FastConv2d, buffers, relu
from capsnet.convolution.choice import choose
from capsnet.convolution.winograd import Winograd
from closeness import TOLERANCE, assert_same, double, gradients, relative

Convolve = Callable[..., Tensor]


def fast(x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int = 1) -> Tensor:
    """FastConv2d with these parameters."""
    out, channels, *kernel = weight.shape
    layer = torch.nn.utils.skip_init(FastConv2d, channels, out, tuple(kernel), stride, device="cpu")
    for name, value in (("weight", weight), ("bias", bias)):
        delattr(layer, name)
        setattr(layer, name, value)
    return layer(x)


def stem(
    images: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor, convolve: Convolve = fast
) -> Tensor:
    """The two convolutions of a capsule network."""
    hidden = relu(convolve(images, weight1, bias1))
    return convolve(hidden, weight2, bias2, stride=2)


def plain(*tensors: Tensor) -> Tensor:
    """The law."""
    with dispatch.disabled():
        return stem(*tensors, convolve=F.conv2d)


def make(shape: tuple[int, ...], channels: int, out: int, seed: int = 0) -> list[Tensor]:
    """Images, then weights and biases of both convolutions, all wanting gradients.

    Conv1 computes with multiples of 1/512 that float32 adds up exactly, and none of its sums is 0: a ReLU that
    rounding pushes to the other side would change gradients by more than the tolerance, in any implementation.
    """
    generator = torch.Generator().manual_seed(seed)

    def sixteenths(low: int, *sizes: int) -> Tensor:
        return torch.randint(low, 17, sizes, generator=generator) / 16

    tensors = [
        sixteenths(0, *shape),
        sixteenths(-16, channels, shape[1], 9, 9),
        sixteenths(-16, channels) + 1 / 512,
        torch.randn(out, channels, 9, 9, generator=generator) / (channels * 81) ** 0.5,
        torch.randn(out, generator=generator) / 5,
    ]
    return [tensor.requires_grad_() for tensor in tensors]


@pytest.fixture
def paper() -> list[Tensor]:
    return make((24, 1, 28, 28), 256, 256)


@pytest.fixture
def narrow() -> list[Tensor]:
    """Fewer channels, and both convolutions are fast all the same."""
    return make((24, 1, 28, 28), 64, 128)


@pytest.fixture
def small() -> list[Tensor]:
    """An input, kernel and bias of fewer channels, for which Winograd's algorithm is chosen all the same."""
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(24, 64, 20, 20, generator=generator)]
    tensors += [torch.randn(128, 64, 9, 9, generator=generator) / 70, torch.randn(128, generator=generator)]
    for train in (True, False):
        assert isinstance(choose(tensors[0].shape, tensors[1].shape, (2, 2), train), Winograd)
    return [tensor.requires_grad_() for tensor in tensors]


def strided(*tensors: Tensor) -> Tensor:
    return fast(*tensors, stride=2)


def library(*tensors: Tensor) -> Tensor:
    return F.conv2d(*tensors, stride=2)


@pytest.mark.quick
def test_the_papers_convolutions_are_fast_and_match_float64(paper: list[Tensor]) -> None:
    found = gradients(stem, paper)
    assert not torch.equal(found[0], plain(*paper)), "the library's algorithm was used"
    assert_same(found, gradients(plain, double(paper)))


def test_layouts_that_are_not_contiguous(small: list[Tensor]) -> None:
    x, weight, bias = small
    turned = [
        tensor.detach().to(memory_format=torch.channels_last).requires_grad_() for tensor in (x, weight)
    ]
    sliced = torch.rand(48, 64, 20, 40)[::2, :, :, ::2].requires_grad_()
    for tensors in ([*turned, bias], [sliced, weight, bias]):
        assert_same(gradients(strided, tensors), gradients(library, double(tensors)))
    y, z = strided(*small), library(*double(small))
    found = torch.autograd.grad(y, weight, torch.ones(1).expand_as(y))[0]
    exact = double(small)
    expected = torch.autograd.grad(library(*exact), exact[1], torch.ones(1, dtype=z.dtype).expand_as(z))[0]
    assert relative(found, expected) < TOLERANCE


@pytest.mark.parametrize("wanted", [[0], [1], [2], [3], [4], [0, 4], [1, 3]])
def test_only_the_gradients_that_are_wanted(narrow: list[Tensor], wanted: list[int]) -> None:
    expected = gradients(plain, double(narrow), wanted)
    for i, tensor in enumerate(narrow):
        tensor.requires_grad_(i in wanted)
    assert_same(gradients(stem, narrow, wanted), expected)


def test_gradients_can_be_differentiated(narrow: list[Tensor]) -> None:
    def penalty(function: Convolve, tensors: list[Tensor]) -> list[Tensor]:
        (slope,) = torch.autograd.grad(function(*tensors).square().sum(), tensors[0], create_graph=True)
        return list(torch.autograd.grad(slope.square().sum(), [tensors[1], tensors[3]]))

    assert_same(penalty(stem, narrow), penalty(plain, double(narrow)))


def test_gradients_may_come_in_batches(small: list[Tensor]) -> None:
    directions = torch.randn(2, 24, 128, 6, 6)
    found, expected = (
        torch.autograd.grad(function(*small), small[0], directions, is_grads_batched=True)[0]
        for function in (strided, library)
    )
    assert relative(found, expected.double()) < TOLERANCE


def test_the_same_images_give_the_same_bits_whatever_was_computed_before(narrow: list[Tensor]) -> None:
    x, *rest = [tensor.detach() for tensor in narrow]
    layers = FastConv2d(1, 64, 9), FastConv2d(64, 128, 9, 2)
    for layer, weight, bias in zip(layers, rest[::2], rest[1::2], strict=True):
        layer.weight.data, layer.bias.data = weight, bias

    @torch.no_grad()
    def features(images: Tensor) -> Tensor:
        return layers[1](relu(layers[0](images)))

    for images in (1, 3, 8, 24):
        first, again = features(x[:images]), features(x[:images])
        features(x)
        assert torch.equal(first, again)
        assert torch.equal(first, features(x[:images]))
        assert relative(first, plain(x[:images], *rest).double()) < TOLERANCE
    a, b = gradients(stem, narrow), gradients(stem, narrow)
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_inference_in_slices_equals_inference_in_batches(small: list[Tensor]) -> None:
    x = torch.rand(150, 64, 20, 20)
    with torch.no_grad():
        whole = strided(x, *small[1:])
        parts = [strided(x[:128], *small[1:]), strided(x[128:], *small[1:])]
    assert relative(whole, torch.cat(parts).double()) < TOLERANCE


def built(tensors: list[Tensor]) -> FastConv2d:
    """A layer with the parameters of `small`."""
    layer = FastConv2d(64, 128, 9, 2)
    layer.load_state_dict({"weight": tensors[1], "bias": tensors[2]})
    return layer


CHANGES: dict[str, Callable[[FastConv2d], object]] = {
    "in place": lambda layer: layer.weight.mul_(2),
    # as moving averages of weights do; the version counter does not see it
    "through .data": lambda layer: layer.weight.data.mul_(2),
    "last bit": lambda layer: layer.weight.data.view(-1).view(torch.int32)[-1:].bitwise_xor_(1),
    "exchange": lambda layer: layer.weight.copy_(layer.weight.flip(1)),
    "new parameter": lambda layer: setattr(layer, "weight", torch.nn.Parameter(layer.weight * 2)),
    "NaN": lambda layer: layer.weight[3, 3, 3].fill_(float("nan")),
}


@pytest.mark.parametrize("change", CHANGES)
@torch.no_grad()
def test_inference_sees_new_weights(small: list[Tensor], change: str) -> None:
    layer = built(small)
    before = layer(small[0])
    CHANGES[change](layer)
    found, fresh = layer(small[0]), copy.deepcopy(layer)(small[0])
    torch.testing.assert_close(found, fresh, rtol=0, atol=0, equal_nan=True)
    assert not torch.equal(found, before)
    expected = F.conv2d(small[0].double(), layer.weight.double(), layer.bias.double(), 2)
    assert bool((found.isnan() == expected.isnan()).all())
    assert relative(found.nan_to_num(), expected.nan_to_num()) < TOLERANCE


@torch.no_grad()
def test_inference_sees_another_geometry(small: list[Tensor]) -> None:
    layer = built(small)
    for size in (20, 24, 20):
        x = torch.rand(24, 64, size, size)
        expected = F.conv2d(x.double(), layer.weight.double(), layer.bias.double(), 2)
        assert relative(layer(x), expected) < TOLERANCE


def test_what_inference_keeps_of_the_weights_is_no_part_of_the_module(small: list[Tensor]) -> None:
    layer = built(small)

    def pickled(module: FastConv2d) -> int:
        file = io.BytesIO()
        torch.save(module, file)
        return len(file.getvalue())

    size = pickled(layer)
    with torch.no_grad():
        expected = layer(small[0])
        assert torch.equal(copy.deepcopy(layer)(small[0]), expected)
    assert pickled(layer) == size
    assert set(layer.state_dict()) == {"weight", "bias"}


@pytest.mark.parametrize("end", ["freed", "trained"])
def test_what_inference_keeps_of_the_weights_ends_with_their_use(small: list[Tensor], end: str) -> None:
    layer = built(small)
    with torch.no_grad():
        layer(small[0])
    gc.collect()
    size = (
        choose(small[0].shape, small[1].shape, (2, 2), train=False).planes
        * 2
        * 2
        * small[1][..., 0, 0].numel()
    )
    kept = [weakref.ref(o) for o in gc.get_objects() if type(o) is Tensor and o.numel() == size]
    assert kept
    if end == "freed":
        del layer
    else:
        layer(small[0])
    gc.collect()
    assert all(tensor() is None for tensor in kept)


def test_inference_mode_and_frozen_parameters(small: list[Tensor]) -> None:
    layer, expected = built(small), library(*double(small))
    with torch.inference_mode():
        assert relative(layer(small[0]), expected) < TOLERANCE
    x = small[0].detach()
    with torch.no_grad():
        assert relative(layer(x), expected) < TOLERANCE
    layer.requires_grad_(False)
    assert not layer(x).requires_grad
    with torch.inference_mode():
        layer.weight.mul_(2)
        assert (
            relative(layer(x) - layer.bias[:, None, None], 2 * (expected - small[2][:, None, None]))
            < TOLERANCE
        )


def test_two_live_graphs_share_nothing(small: list[Tensor]) -> None:
    other = [torch.randn_like(tensor).requires_grad_() for tensor in small]
    expected = [gradients(strided, small), gradients(strided, other)]
    y, z = strided(*small), strided(*other)
    weighting = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    for output, tensors, right in ((y, small, expected[0]), (z, other, expected[1])):
        found = torch.autograd.grad(output, tensors, weighting, retain_graph=True)
        assert all(torch.equal(a, b) for a, b in zip(found, right[1:], strict=True))
        again = torch.autograd.grad(output, tensors, weighting)
        assert all(torch.equal(a, b) for a, b in zip(again, right[1:], strict=True))


def test_python_threads_at_once(small: list[Tensor]) -> None:
    layer = built(small)
    inputs = [[torch.randn_like(tensor).requires_grad_() for tensor in small] for _ in range(3)]
    expected = [gradients(strided, tensors) for tensors in inputs]
    with torch.no_grad():
        outputs = [library(tensors[0], *small[1:]).double() for tensors in inputs]
    found: dict[int, list[list[Tensor]]] = {}
    answers: dict[int, Tensor] = {}

    def work(i: int) -> None:
        found[i] = [gradients(strided, inputs[i]) for _ in range(2)]
        with torch.no_grad():
            answers[i] = layer(inputs[i][0])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, right in enumerate(expected):
        for result in found[i]:
            assert_same(result, [tensor.double() for tensor in right])
        assert relative(answers[i], outputs[i]) < TOLERANCE


def test_the_number_of_threads_changes_no_bit(narrow: list[Tensor]) -> None:
    before, outputs = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            outputs.append(stem(*narrow))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[0], outputs[2])


def test_switched_off(small: list[Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    expected = library(*small)
    assert not torch.equal(strided(*small), expected)
    with dispatch.disabled():
        assert torch.equal(strided(*small), expected)
    monkeypatch.setenv("CAPSNET_FAST", "0")
    assert torch.equal(strided(*small), expected)


def test_other_types_use_the_library(small: list[Tensor]) -> None:
    exact, half = double(small), [tensor.detach().bfloat16() for tensor in small]
    assert torch.equal(strided(*exact), library(*exact))
    assert torch.equal(strided(*half), library(*half))
    with torch.autocast("cpu", torch.bfloat16):
        assert strided(*small).dtype == torch.bfloat16


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
def test_defaults_for_new_tensors_change_nothing(narrow: list[Tensor], choice: torch.dtype | str) -> None:
    weighting = torch.rand(24, 128, 6, 6)

    def everything() -> list[Tensor]:
        y = stem(*narrow)
        with torch.no_grad():
            return [y.detach(), *torch.autograd.grad(y, narrow, weighting), stem(*narrow)]

    expected = everything()
    with default(choice):
        found = everything()
    for a, b in zip(found, expected, strict=True):
        assert (a.dtype, a.device) == (torch.float32, torch.device("cpu"))
        assert torch.equal(a, b)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # by torch.func.jvp
def test_transforms_and_tracing_use_the_library(small: list[Tensor]) -> None:
    x, *parameters = [tensor.detach() for tensor in small]
    layer, expected = built(small), library(x, *parameters)
    for output in (
        torch.func.vmap(lambda image: layer(image[None])[0])(x),
        torch.func.jvp(layer, (x,), (x,))[0],
        torch.export.export(layer, (x,)).module()(x),
        torch.compile(layer, fullgraph=True, backend="aot_eager")(x),
    ):
        assert relative(output, expected.double()) < TOLERANCE


def test_nan_is_not_hidden(narrow: list[Tensor]) -> None:
    images = narrow[0].detach().clone()
    images[3, 0, 5, 5] = float("nan")
    y = stem(images, *narrow[1:])
    assert y[3].isnan().any()
    assert not y[[0, 1, 2, *range(4, 24)]].isnan().any()


@pytest.mark.misuse
@pytest.mark.parametrize("shape", [(24, 65, 20, 20), (24, 64, 8, 20), (24, 64, 20), (64,)])
def test_the_library_explains_shapes_that_do_not_fit(small: list[Tensor], shape: tuple[int, ...]) -> None:
    with pytest.raises(RuntimeError, match=r"size|[Ee]xpected"):
        strided(torch.rand(shape), *small[1:])


def test_the_library_explains_a_stride_of_0(small: list[Tensor]) -> None:
    with pytest.raises(RuntimeError, match="stride"):
        fast(*small, stride=0)


def test_one_image_without_a_batch(small: list[Tensor]) -> None:
    assert torch.equal(strided(small[0][0], *small[1:]), library(small[0][0], *small[1:]))


@pytest.mark.parametrize(
    "options",
    [
        {"padding": 1},
        {"padding": "same"},
        {"padding": 2, "padding_mode": "circular"},
        {"dilation": 2},
        {"groups": 2},
        {"stride": (1, 2)},
        {"bias": False},
    ],
)
def test_other_options_are_obeyed(options: dict[str, object]) -> None:
    x, layer = torch.rand(24, 64, 20, 20), FastConv2d(64, 128, 9, **options)
    twin = torch.nn.Conv2d(64, 128, 9, **options).double()
    twin.load_state_dict(layer.state_dict())
    assert relative(layer(x), twin(x.double())) < TOLERANCE


def test_the_rule_prefers_the_library_where_little_is_to_win() -> None:
    x, weight = (128, 256, 20, 20), (256, 256, 9, 9)
    for batch, train in ((128, True), (128, False), (8, False)):
        assert isinstance(choose((batch, *x[1:]), weight, (2, 2), train), Winograd)
    for case in (
        ((1, *x[1:]), weight, (2, 2), True),
        ((1, *x[1:]), weight, (2, 2), False),
        ((0, *x[1:]), weight, (2, 2), True),
        (x, (256, 256, 3, 3), (1, 1), True),
        ((128, 1, 20, 20), (8, 1, 9, 9), (2, 2), True),
        ((128, 256, 9, 9), weight, (9, 9), True),  # one tap per position: nothing to save
        ((128, 256, 200, 200), weight, (2, 2), True),  # planes of gigabytes
    ):
        assert choose(*case) is None


def test_memory_that_is_reused_is_not_read_before_it_is_written(small: list[Tensor]) -> None:
    """The fixture `poisoned` fills every buffer with NaN: here, that it does."""
    assert buffers.take(10).isnan().all()
    assert strided(*small).isfinite().all()
