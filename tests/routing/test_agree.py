"""One pass of agreement: the reference against the equations, and the fast forms against the reference."""

from __future__ import annotations

from functools import partial
from itertools import product
from typing import Any

import pytest
import torch
from functorch.compile import make_boxed_func
from torch import Tensor
from torch._dynamo.backends.common import aot_autograd
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from capsnet._support import dispatch
from capsnet.benchmark.measure import peak_extra_memory
from capsnet.routing import Moments, agree, agree_backends, backends, log_normaliser
from closeness import poisoned

OPTIONAL = ("query", "precision", "offset", "activations", "normaliser", "centre")
FAST = ("chunked", "cpu")
SIZES = ((3, 63, 17, 5, 4), (2, 1, 3, 4, 2), (2, 5, 3, 1, 2), (1, 7, 3, 2, 5))
"""(batch, in_caps, in_dim, out_caps, out_dim), odd ones; one child; one parent; one sample."""


def problem(
    sizes: tuple[int, ...] = (3, 11, 5, 4, 6),
    present: tuple[str, ...] = OPTIONAL,
    rows: int | None = None,
    dtype: torch.dtype = torch.float64,
) -> dict[str, Tensor]:
    batch, in_caps, in_dim, out_caps, out_dim = sizes
    generator = torch.Generator().manual_seed(sum(sizes))

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    dim = out_dim * (rows or 1)
    every = {
        "u": normal(batch, in_caps, *([rows] if rows else []), in_dim),
        "weight": normal(in_caps, in_dim, out_caps, out_dim) / in_dim**0.5,
        "query": normal(batch, out_caps, dim) / dim**0.5,
        "precision": normal(batch, out_caps, dim).square() / dim,
        "offset": normal(batch, out_caps),
        "activations": normal(batch, in_caps).sigmoid(),
        "normaliser": normal(batch, in_caps) + 2,
        "centre": normal(batch, out_caps, dim) / 4,
    }
    return {name: x.to(dtype) for name, x in every.items() if name in ("u", "weight", *present)}


def results(tensors: dict[str, Tensor], function: Any = agree, **options: Any) -> list[Tensor]:
    """All outputs, then the gradients of all inputs for random gradients of the outputs."""
    leaves = {name: x.detach().clone().requires_grad_() for name, x in tensors.items()}
    found = function(**leaves, **options)
    outputs = [x for x in (found if isinstance(found, tuple) else (found,)) if x is not None]
    generator = torch.Generator().manual_seed(0)
    seen = [torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x.dtype) for x in outputs]
    pairs = [pair for pair in zip(outputs, seen, strict=True) if pair[0].requires_grad]
    gradients = [torch.zeros_like(x) for x in leaves.values()]
    if pairs:
        ends, theirs = zip(*pairs, strict=True)
        grads = torch.autograd.grad(ends, list(leaves.values()), theirs, allow_unused=True)
        gradients = [zero if x is None else x for zero, x in zip(gradients, grads, strict=True)]
    return [*(x.detach() for x in outputs), *gradients]


def close(found: list[Tensor], expected: list[Tensor], limit: float) -> bool:
    """Compare by the largest number of a tensor; gradients that cancel, by 1."""
    return all(
        a.shape == b.shape and bool(((a - b).abs() <= limit * max(1, b.abs().amax())).all())
        if b.numel()
        else True
        for a, b in zip(found, expected, strict=True)
    )


@pytest.mark.quick
@pytest.mark.parametrize("leaky", [False, True])
def test_reference_follows_the_equations(leaky: bool) -> None:
    t = problem(present=OPTIONAL[:4])
    found = agree(**t, leaky=leaky, backend="reference")
    for b, j in product(range(3), range(4)):
        count, first, second = 0.0, torch.zeros(6), torch.zeros(6)
        for i in range(11):
            votes = torch.stack([t["weight"][i, :, k].T @ t["u"][b, i] for k in range(4)])
            logits = (
                t["offset"][b] + (votes * t["query"][b]).sum(1) - (t["precision"][b] * votes**2).sum(1) / 2
            )
            c = logits[j].exp() / (logits.exp().sum() + leaky)
            share = t["activations"][b, i] * c
            count, first, second = count + share, first + share * votes[j], second + share * votes[j] ** 2
        torch.testing.assert_close(found.count[b, j], count)
        torch.testing.assert_close(found.first[b, j], first)
        assert found.second is not None
        torch.testing.assert_close(found.second[b, j], second)


def test_the_rows_of_a_matrix_share_w() -> None:
    t = problem((3, 11, 4, 5, 4), (), rows=4)
    votes = torch.stack([t["u"][:, i] @ t["weight"][i, :, 2] for i in range(11)], 1)
    torch.testing.assert_close(agree(**t).first[:, 2], votes.mean(1).flatten(1) * 11 / 5)


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("rows", [None, 3])
def test_equals_the_reference(
    monkeypatch: pytest.MonkeyPatch, sizes: tuple[int, ...], rows: int | None, backend: str
) -> None:
    room = 8 * sizes[3] * sizes[4] * (rows or 1)
    monkeypatch.setattr(
        backends, "CPU_VOTES", room * (4 if sizes[1] < 10 else 100)
    )  # samples and children in parts
    for present in product((False, True), repeat=6):
        names = tuple(name for name, there in zip(OPTIONAL, present, strict=True) if there)
        tensors = problem(sizes, names, rows)
        for leaky in (False,) if "normaliser" in names else (False, True):
            expected = results(tensors, leaky=leaky, backend="reference")
            with poisoned():
                ours = results(tensors, leaky=leaky, backend=backend)
            assert close(ours, expected, 1e-12), (names, leaky)


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("rows", [None, 3])
@pytest.mark.parametrize("leaky", [False, True])
def test_the_normaliser_equals_the_reference(
    monkeypatch: pytest.MonkeyPatch, leaky: bool, rows: int | None, backend: str
) -> None:
    monkeypatch.setattr(backends, "CPU_VOTES", 100 * 8 * 20 * (rows or 1))
    for present in product((False, True), repeat=4):
        names = tuple(name for name, there in zip((*OPTIONAL[:3], "centre"), present, strict=True) if there)
        tensors = problem(SIZES[0], names, rows)
        with poisoned():
            ours = results(tensors, log_normaliser, leaky=leaky, backend=backend)
        assert close(ours, results(tensors, log_normaliser, leaky=leaky, backend="reference"), 1e-12), names


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize(
    ("sizes", "rows"),
    [((37, 40, 8, 10, 16), None), ((70, 20, 4, 32, 4), 4), ((270, 9, 5, 33, 4), 4)],  # samples in groups
    ids=str,
)
def test_in_float32(sizes: tuple[int, ...], rows: int | None, backend: str) -> None:
    tensors = problem(sizes, rows=rows, dtype=torch.float32)
    exact = results({name: x.double() for name, x in tensors.items()}, backend="reference")
    with poisoned():
        ours = results(tensors, backend=backend)
    assert close([x.double() for x in ours], exact, 1e-5)


def test_the_kernels_give_the_same_bits_in_any_batch_and_with_any_number_of_threads() -> None:
    tensors = problem((37, 50, 9, 5, 6), dtype=torch.float32)
    before = torch.get_num_threads()
    runs = []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        try:
            runs.append(results(tensors, backend="cpu"))
        finally:
            torch.set_num_threads(before)
    for other in runs[1:]:
        assert all(torch.equal(*pair) for pair in zip(runs[0], other, strict=True))
    few = {name: x if name == "weight" else x[30:36] for name, x in tensors.items()}
    assert all(
        torch.equal(x[30:36], y)
        for x, y in zip(agree(**tensors, backend="cpu"), agree(**few, backend="cpu"), strict=True)
        if x is not None and y is not None
    )


def test_the_normaliser_gives_the_couplings_of_the_softmax() -> None:
    tensors = problem(present=OPTIONAL[:3])
    for leaky in (False, True):
        z = log_normaliser(**tensors, leaky=leaky)
        torch.testing.assert_close(agree(**tensors, normaliser=z), agree(**tensors, leaky=leaky))


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("rows", [None, 2])
@pytest.mark.parametrize("normaliser", [False, True])
def test_gradients_match_finite_differences(
    monkeypatch: pytest.MonkeyPatch, normaliser: bool, rows: int | None, backend: str
) -> None:
    monkeypatch.setattr(backends, "CPU_VOTES", 2 * 3 * 2 * 8 * 4)
    tensors = problem((2, 4, 2, 2, 2), OPTIONAL[: 4 + normaliser], rows)
    leaves = tuple(x.requires_grad_() for x in tensors.values())

    def function(*inputs: Tensor) -> tuple[Any, ...]:
        return tuple(agree(**dict(zip(tensors, inputs, strict=True)), backend=backend))

    assert torch.autograd.gradcheck(function, leaves)
    assert torch.autograd.gradgradcheck(function, leaves, fast_mode=True)

    def z(*inputs: Tensor) -> Tensor:
        return log_normaliser(**dict(zip(tensors, inputs, strict=False)), leaky=True, backend=backend)

    assert torch.autograd.gradcheck(z, leaves[:5])
    assert torch.autograd.gradgradcheck(z, leaves[:5], fast_mode=True)


@pytest.mark.parametrize("backend", ["reference", *FAST])
def test_children_without_activation_have_finite_gradients(backend: str) -> None:
    tensors = problem()
    tensors["activations"] = torch.zeros_like(tensors["activations"])
    found = results(tensors, backend=backend)
    assert all(torch.isfinite(x).all() for x in found)
    assert not any(x.any() for x in found[:3])


@pytest.mark.parametrize("backend", ["reference", *FAST])
@pytest.mark.parametrize("sizes", [(0, 11, 5, 4, 6), (2, 0, 5, 4, 6)])
def test_nothing_to_sum(backend: str, sizes: tuple[int, ...]) -> None:
    assert not any(x.any() for x in results(problem(sizes), backend=backend))


@pytest.mark.parametrize("backend", FAST)
def test_sixteen_bits_and_autocast(backend: str) -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        tensors = problem((5, 63, 17, 5, 4), dtype=dtype)
        exact = results({name: x.double() for name, x in tensors.items()}, backend="reference")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            ours = results(tensors, backend=backend)
        assert all(x.dtype == torch.float32 for x in ours[:3])
        assert all(x.dtype == dtype for x in ours[3:])
        assert close(ours[:3], exact[:3], 1e-5)
        assert close(ours[3:], exact[3:], max(1e-5, 2 * torch.finfo(dtype).eps))


def step(backend: str, big: bool) -> Any:
    sizes = {"sizes": (128, 576, 8, 10, 16)} if big else {}
    tensors = {name: x.requires_grad_() for name, x in problem(**sizes, dtype=torch.float32).items()}

    def run() -> tuple[Tensor, ...]:
        outputs = [x for x in agree(**tensors, backend=backend) if x is not None]
        inputs = [x for name, x in tensors.items() if name != "centre"]
        return tuple(torch.autograd.grad(sum(x.sum() for x in outputs), inputs))

    return run


@pytest.mark.parametrize("backend", FAST)
def test_memory_is_bounded(backend: str) -> None:
    """The votes alone would take 47 MB."""
    big, small = (partial(step, backend, big) for big in (True, False))
    assert peak_extra_memory(big, torch.device("cpu"), small) <= 12e6


@pytest.mark.parametrize("function", [agree, log_normaliser])
def test_compiled_graphs_do_not_hold_the_votes(function: Any) -> None:
    tensors = problem(present=OPTIONAL[: 4 if function is agree else 3], rows=3)
    sizes: list[int] = []

    def look(graph: torch.fx.GraphModule, _: Any) -> Any:
        made = [node.meta["val"] for node in graph.graph.nodes if "val" in node.meta]
        sizes.extend(x.numel() for x in made if isinstance(x, Tensor))
        return make_boxed_func(graph)

    backend = aot_autograd(fw_compiler=look)  # the backward graph, too
    compiled = torch.compile(function, fullgraph=True, backend=backend)
    assert close(results(tensors, compiled), results(tensors, function, backend="reference"), 1e-12)
    assert max(sizes) == tensors["weight"].numel() < 3 * 11 * 4 * 18
    plain = torch.compile(partial(function, backend="reference"), fullgraph=True, backend=backend)
    results(tensors, plain)
    assert max(sizes) >= 3 * 11 * 4 * 18, "the votes are there to be seen"


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # torch.func.jvp uses it
def test_transformed_and_watched_operators_are_those_of_the_reference(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("the fast path was taken")

    tensors = problem(present=OPTIONAL[:4])
    (expected,) = torch.autograd.grad(
        agree(**{**tensors, "u": tensors["u"].requires_grad_()}).first.sum(), tensors["u"]
    )
    tensors["u"] = tensors["u"].detach()
    rest = {name: x for name, x in tensors.items() if name != "u"}
    plain = agree(**tensors)
    monkeypatch.setattr(agree_backends, "pick", refuse)

    def total(u: Tensor) -> Tensor:
        return agree(u, **rest).first.sum()

    with pytest.raises(AssertionError, match="fast path"):
        total(tensors["u"])
    torch.testing.assert_close(torch.func.grad(total)(tensors["u"]), expected)
    _, slope = torch.func.jvp(total, (tensors["u"],), (torch.ones_like(tensors["u"]),))
    torch.testing.assert_close(slope, expected.sum())
    traced = make_fx(lambda u: agree(u, **rest).first)(torch.randn_like(tensors["u"]))
    torch.testing.assert_close(traced(tensors["u"]), plain.first)
    with FakeTensorMode() as mode:
        fake = {name: mode.from_tensor(x) for name, x in tensors.items()}
        assert agree(**fake).first.shape == (3, 4, 6)
    meta = {name: x.to("meta") for name, x in tensors.items()}
    assert agree(**meta).count.shape == (3, 4)
    torch.testing.assert_close(
        agree(**{name: x[:1] if name != "weight" else x for name, x in tensors.items()}).first,
        plain.first[:1],
    )
    with dispatch.disabled():
        torch.testing.assert_close(agree(**tensors), plain)


def test_gradients_may_come_in_batches() -> None:
    tensors = problem(present=OPTIONAL[:4])
    tensors["u"].requires_grad_()

    def jacobian(backend: str) -> Tensor:
        first = agree(**tensors, backend=backend).first
        each = torch.eye(first.numel(), dtype=first.dtype).reshape(-1, *first.shape)
        return torch.autograd.grad(first, tensors["u"], each, is_grads_batched=True)[0]

    for backend in FAST:
        torch.testing.assert_close(jacobian(backend), jacobian("reference"))


def test_without_a_precision_there_are_no_second_moments() -> None:
    for backend in ("reference", *FAST):
        found = agree(**problem(present=("query",)), backend=backend)
        assert isinstance(found, Moments)
        assert found.second is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"u": torch.zeros(3, 10, 5)}, r"u \(3, 10, 5\) must be \(batch, in_caps, in_dim\) or"),
        ({"weight": torch.zeros(11, 5, 24)}, r"weight \(11, 5, 24\) \(in_caps, in_dim, out_caps, out_dim\)"),
        ({"query": torch.zeros(3, 4, 5)}, r"query \(3, 4, 5\) must be \(3, 4, 6\)"),
        ({"precision": torch.zeros(3, 4)}, r"precision \(3, 4\) must be \(3, 4, 6\)"),
        ({"offset": torch.zeros(4)}, r"offset \(4,\) must be \(3, 4\)"),
        ({"activations": torch.zeros(3, 4)}, r"activations \(3, 4\) must be \(3, 11\)"),
        ({"activations": torch.full((3, 11), 1.5)}, r"activations from 1.5 to 1.5 must be in \[0, 1\]"),
        ({"precision": torch.full((3, 4, 6), -0.5)}, "precision from -0.5 to -0.5 must be at least 0"),
        ({"normaliser": torch.zeros(11)}, r"normaliser \(11,\) must be \(3, 11\)"),
        ({"centre": torch.zeros(3, 4)}, r"centre \(3, 4\) must be \(3, 4, 6\)"),
        ({"leaky": True}, "leaky has no effect on a given normaliser"),
        ({"offset": torch.zeros(3, 4, dtype=torch.int64)}, "floating-point"),
        ({"offset": torch.zeros(3, 4, device="meta")}, "on one device"),
        ({"backend": "cuda"}, "'cuda' is none of auto, reference, triton, cpu, chunked"),
    ],
)
def test_errors_say_what_and_why(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        agree(**{**problem(dtype=torch.float32), **change})
    assert "\n" not in str(error.value)
