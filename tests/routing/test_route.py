"""Routing by agreement: the reference against the equations, and what every backend has to respect."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.flop_counter import FlopCounterMode

from capsnet import CapsuleLayer
from capsnet._support import dispatch
from capsnet.routing import backends, operators, route, trace_routing

ON_CPU = ("reference", "cpu", "chunked")


def children_and_weight(
    batch: int = 3, in_caps: int = 11, in_dim: int = 5, out_caps: int = 4, out_dim: int = 6, **kind: Any
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(batch, in_caps, in_dim, generator=generator, **kind)
    return u, torch.randn(in_caps, in_dim, out_caps, out_dim, generator=generator, **kind) / in_dim**0.5


def from_the_equations(u: Any, weight: Any, iterations: int, bias: Any, leaky: bool) -> tuple[Any, Any]:
    """Outputs and couplings of the last iteration, one child and one parent at a time."""
    batch, children, _ = u.shape
    parents, dim = weight.shape[2:]
    outputs, all_couplings = np.zeros((batch, parents, dim)), np.zeros((batch, children, parents))
    for sample in range(batch):
        votes = np.array([[u[sample, i] @ weight[i, :, j] for j in range(parents)] for i in range(children)])
        logits = np.zeros((children, parents))
        for _ in range(iterations):
            odds = np.exp(logits)
            couplings = odds / (odds.sum(axis=1, keepdims=True) + leaky)
            for j in range(parents):
                s = sum(couplings[i, j] * votes[i, j] for i in range(children)) + bias[j]
                square = s @ s
                outputs[sample, j] = square / (1 + square) * s / np.sqrt(square)
            logits = logits + np.einsum("ijd,jd->ij", votes, outputs[sample])
        all_couplings[sample] = couplings
    return outputs, all_couplings


@pytest.mark.quick
@pytest.mark.parametrize("leaky", [False, True])
@pytest.mark.parametrize("iterations", [1, 2, 3, 5])
def test_reference_follows_the_equations(iterations: int, leaky: bool) -> None:
    u, weight = children_and_weight(dtype=torch.float64)
    bias = torch.linspace(-1, 1, 24, dtype=torch.float64).reshape(4, 6)
    expected, couplings = from_the_equations(u.numpy(), weight.numpy(), iterations, bias.numpy(), leaky)
    trace = trace_routing(u, weight, iterations, backend="reference", bias=bias, leaky=leaky)
    np.testing.assert_allclose(trace.outputs[-1].numpy(), expected, rtol=1e-12)
    np.testing.assert_allclose(trace.couplings[-1].numpy(), couplings, rtol=1e-12)


@pytest.mark.parametrize("gradient", ["all", "last"])
@pytest.mark.parametrize("backend", ["reference", "chunked"])
@pytest.mark.parametrize("leaky", [False, True])
def test_gradients_match_finite_differences(
    monkeypatch: pytest.MonkeyPatch, backend: str, leaky: bool, gradient: Any
) -> None:
    monkeypatch.setattr(backends, "CPU_VOTES", 2 * 3 * 2 * 8 * 2)  # two children at a time
    u, weight = children_and_weight(2, 5, 2, 3, 2, dtype=torch.float64)
    bias = torch.full((3, 2), 0.1, dtype=torch.float64)
    inputs = tuple(x.requires_grad_() for x in (u, weight, bias))

    def route_(u: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return route(u, weight, 3, backend=backend, bias=bias, leaky=leaky, gradient=gradient)

    if gradient == "all":
        assert torch.autograd.gradcheck(route_, inputs)
    else:  # not a derivative of anything, so compare with the plain code
        dv = torch.randn(2, 3, 2, dtype=torch.float64)
        expected = torch.autograd.grad(
            route(u, weight, 3, backend="reference", bias=bias, leaky=leaky, gradient="last"), inputs, dv
        )
        assert all(
            torch.allclose(a, b, rtol=1e-10)
            for a, b in zip(torch.autograd.grad(route_(*inputs), inputs, dv), expected, strict=True)
        )


@pytest.mark.quick
@pytest.mark.parametrize("backend", ON_CPU)
@pytest.mark.parametrize("leaky", [False, True])
def test_trace_is_what_route_does(backend: str, leaky: bool) -> None:
    u, weight = children_and_weight(batch=18)
    bias = torch.full((4, 6), 0.1)
    trace = trace_routing(u, weight, 4, backend=backend, bias=bias, leaky=leaky)
    assert torch.equal(trace.outputs[-1], route(u, weight, 4, backend=backend, bias=bias, leaky=leaky))
    plain = trace_routing(u, weight, 4, backend="reference", bias=bias, leaky=leaky)
    for kind in ("logits", "couplings", "outputs"):
        expected = getattr(plain, kind)
        assert (getattr(trace, kind) - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert torch.equal(trace.logits[0], torch.zeros(18, 11, 4))
    to_parents = trace.couplings.sum(-1)
    if leaky:
        assert (to_parents < 1).all()
    else:
        torch.testing.assert_close(to_parents, torch.ones(4, 18, 11))


@pytest.mark.parametrize("backend", ON_CPU)
def test_children_of_length_zero_have_finite_gradients(backend: str) -> None:
    _, weight = children_and_weight()
    u = torch.zeros(3, 11, 5, requires_grad=True)
    v = route(u, weight.requires_grad_(), 3, backend=backend)
    assert torch.equal(v, torch.zeros(3, 4, 6))
    v.sum().backward()
    assert u.grad is not None
    assert weight.grad is not None
    assert torch.isfinite(u.grad).all()
    assert torch.isfinite(weight.grad).all()


@pytest.mark.parametrize("backend", ON_CPU)
def test_a_nan_reaches_its_own_sample_only(backend: str) -> None:
    u, weight = children_and_weight(batch=20)
    u[7, 3, 2] = torch.nan
    v = route(u, weight, 3, backend=backend)
    assert v[7].isnan().all()
    assert not v[[n for n in range(20) if n != 7]].isnan().any()


@pytest.mark.quick
@pytest.mark.parametrize("backend", ON_CPU)
def test_huge_votes_do_not_overflow(backend: str) -> None:
    u, weight = children_and_weight()
    u = (1e4 * u).requires_grad_()
    v = route(u, weight, 3, backend=backend)
    (du,) = torch.autograd.grad(v.sum(), u)
    assert torch.isfinite(v).all()
    assert torch.isfinite(du).all()


@pytest.mark.parametrize("backend", ON_CPU)
@pytest.mark.parametrize("shape", [(0, 11, 5, 4, 6), (2, 0, 5, 4, 6)])
def test_nothing_to_route(backend: str, shape: tuple[int, ...]) -> None:
    u, weight = children_and_weight(*shape)
    v = route(u.requires_grad_(), weight.requires_grad_(), 3, backend=backend)
    v.sum().backward()
    assert torch.equal(v, torch.zeros(shape[0], 4, 6))
    assert weight.grad is not None
    assert torch.equal(weight.grad, torch.zeros_like(weight))


@pytest.mark.parametrize("backend", ON_CPU)
@pytest.mark.parametrize(
    ("of_u", "of_weight", "of_v"),
    [
        (torch.bfloat16, torch.bfloat16, torch.bfloat16),
        (torch.float16, torch.float32, torch.float32),
        (torch.float32, torch.float64, torch.float64),
    ],
)
def test_mixed_precisions(backend: str, of_u: torch.dtype, of_weight: torch.dtype, of_v: torch.dtype) -> None:
    u, weight = children_and_weight()
    u, weight = u.to(of_u).requires_grad_(), weight.to(of_weight).requires_grad_()
    bias = torch.full((4, 6), 0.1, requires_grad=True)
    v = route(u, weight, 3, backend=backend, bias=bias)
    v.sum().backward()
    exact = route(u.double(), weight.double(), 3, backend="reference", bias=bias.double())
    assert v.dtype == of_v
    torch.testing.assert_close(v, exact.to(of_v), rtol=torch.finfo(of_v).eps * 4, atol=1e-6)
    for x in (u, weight, bias):
        assert x.grad is not None
        assert x.grad.dtype == x.dtype


@pytest.mark.parametrize("backend", ON_CPU)
def test_autocast_leaves_routing_alone(backend: str) -> None:
    u, weight = children_and_weight()
    leaves = u.requires_grad_(), weight.requires_grad_()
    plain = route(u, weight, 3, backend=backend)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = route(u, weight, 3, backend=backend)
    assert torch.equal(under, plain)
    grads = torch.autograd.grad(under.sum(), leaves)
    assert all(
        torch.equal(*pair) for pair in zip(grads, torch.autograd.grad(plain.sum(), leaves), strict=True)
    )


@pytest.mark.parametrize("backend", ["auto", "chunked"])
def test_differentiable_twice(backend: str) -> None:
    u, weight = children_and_weight(2, 3, 2, 3, 2, dtype=torch.float64)

    def route_(u: Tensor, weight: Tensor) -> Tensor:
        return route(u, weight, 2, backend=backend)

    assert torch.autograd.gradgradcheck(route_, (u.requires_grad_(), weight.requires_grad_()))


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # torch.func.jvp uses it
def test_function_transforms_and_forward_mode() -> None:
    u, weight = children_and_weight()
    direction = torch.ones_like(u)

    def total(u: Tensor) -> Tensor:
        return route(u, weight, 3).sum()

    (expected,) = torch.autograd.grad(total(u.requires_grad_()), u)
    u = u.detach()
    torch.testing.assert_close(torch.func.grad(total)(u), expected, rtol=1e-4, atol=1e-5)
    _, slope = torch.func.jvp(total, (u,), (direction,))
    torch.testing.assert_close(slope, expected.sum(), rtol=1e-4, atol=1e-4)
    each = torch.vmap(lambda one: route(one[None], weight, 3)[0])(u)
    torch.testing.assert_close(each, route(u, weight, 3), rtol=1e-5, atol=1e-6)
    with torch.autograd.forward_ad.dual_level():
        dual = total(torch.autograd.forward_ad.make_dual(u, direction))
        tangent = torch.autograd.forward_ad.unpack_dual(dual).tangent
        torch.testing.assert_close(tangent, expected.sum(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("backend", ON_CPU)
def test_inputs_made_from_one_another_are_not_counted_twice(backend: str) -> None:
    u, other = children_and_weight()
    u.requires_grad_()

    def gradient(backend: str, create_graph: bool) -> Tensor:
        weight = other * u.mean()
        v = route(u, weight, 3, bias=weight.mean((0, 1)), backend=backend)
        return torch.autograd.grad(v.square().sum(), u, create_graph=create_graph)[0]

    for create_graph in (False, True):
        found = gradient(backend, create_graph)
        torch.testing.assert_close(found, gradient("reference", False), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("backend", ["auto", "chunked"])
def test_gradients_may_come_in_batches(backend: str) -> None:
    u, weight = children_and_weight()
    u.requires_grad_()

    def jacobian(backend: str) -> Tensor:
        v = route(u, weight, 3, backend=backend)
        each = torch.eye(v.numel()).reshape(-1, *v.shape)
        return torch.autograd.grad(v, u, each, is_grads_batched=True)[0]

    torch.testing.assert_close(jacobian(backend), jacobian("reference"), rtol=1e-4, atol=1e-6)


@pytest.mark.filterwarnings(
    "ignore:`torch.jit.script`:DeprecationWarning"
)  # PyTorch's own, in its first dual level
def test_tracers_and_dispatch_modes_see_the_operators() -> None:
    u, weight = children_and_weight()
    traced = make_fx(lambda u: route(u, weight, 3))(torch.randn_like(u))
    torch.testing.assert_close(traced(u), route(u, weight, 3), rtol=1e-5, atol=1e-6)
    with FlopCounterMode(display=False) as counter:
        route(u, weight, 3)
    assert counter.get_total_flops() >= 2 * 3 * weight.numel()  # the votes alone
    with FakeTensorMode() as mode:
        assert route(mode.from_tensor(u), mode.from_tensor(weight), 3).shape == (3, 4, 6)
    assert route(u.to("meta"), weight.to("meta"), 3).shape == (3, 4, 6)
    with forward_ad.dual_level():
        bias = forward_ad.make_dual(torch.zeros(4, 6), torch.ones(4, 6))
        assert forward_ad.unpack_dual(route(u, weight, 3, bias=bias)).tangent is not None


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("default", [torch.float64, torch.bfloat16, "meta"])
def test_the_programs_defaults_do_not_matter(default: torch.dtype | str, batch: int) -> None:
    u, weight = children_and_weight(batch)
    inputs = u.requires_grad_(), weight.requires_grad_(), torch.full((4, 6), 0.1).requires_grad_()

    def routed() -> list[Tensor]:
        v = route(*inputs[:2], 3, bias=inputs[2], backend="cpu")
        return [v, *torch.autograd.grad(v, inputs, v.detach())]

    expected = routed()
    before = torch.get_default_dtype()
    try:
        if isinstance(default, torch.dtype):
            torch.set_default_dtype(default)
        with torch.device(default if isinstance(default, str) else "cpu"):
            found = routed()
    finally:
        torch.set_default_dtype(before)
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


def test_functional_call_uses_the_given_weights() -> None:
    layer = CapsuleLayer(11, 5, 4, 6, bias=True)
    u, weight = children_and_weight()
    out = torch.func.functional_call(layer, {"weight": weight, "bias": torch.zeros(4, 6)}, (u,))
    assert torch.equal(out, route(u, weight, 3, bias=torch.zeros(4, 6)))


@pytest.mark.parametrize("backend", ["auto", "chunked"])
def test_compiles_into_one_graph(backend: str) -> None:
    u, weight = children_and_weight()
    bias = torch.full((4, 6), 0.1)
    inputs = tuple(x.requires_grad_() for x in (u, weight, bias))

    def route_(u: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return route(2 * u, weight, 3, bias=bias, backend=backend) * 3

    compiled = torch.compile(route_, fullgraph=True, backend="aot_eager")
    for use in (inputs, (torch.randn(7, 11, 5, requires_grad=True), weight, bias)):
        plain, under = route_(*use), compiled(*use)
        assert torch.equal(plain, under)
        grads = (torch.autograd.grad(v.square().sum(), use) for v in (plain, under))
        assert all(torch.equal(*pair) for pair in zip(*grads, strict=True))


def test_the_compiled_operators_keep_their_promises() -> None:
    u, weight = children_and_weight()
    bias = torch.full((4, 6), 0.1)
    inputs = tuple(x.requires_grad_() for x in (u, weight, bias))
    torch.library.opcheck(torch.ops.capsnet.route.default, (*inputs, 3, True, "all", "cpu"))


def test_export_sees_plain_operations() -> None:
    layer = CapsuleLayer(11, 5, 4, 6).eval()
    u, _ = children_and_weight()
    program = torch.export.export(layer, (u,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    assert not any("capsnet" in str(node.target) for node in program.graph.nodes)
    with torch.no_grad():
        other = torch.randn(9, 11, 5)
        torch.testing.assert_close(program.module()(other), layer(other), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("off", ["variable", "block"])
def test_fast_paths_can_be_turned_off(monkeypatch: pytest.MonkeyPatch, off: str) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a fast path was taken")

    monkeypatch.setattr(operators, "route_fast", refuse)
    u, weight = children_and_weight()
    with pytest.raises(AssertionError, match="fast path"):
        route(u, weight)
    if off == "variable":
        monkeypatch.setenv("CAPSNET_FAST", "0")
        assert torch.equal(route(u, weight), route(u, weight, backend="reference"))
    else:
        with dispatch.disabled():
            assert torch.equal(route(u, weight), route(u, weight, backend="reference"))
        assert dispatch.enabled()


def test_one_sample_takes_the_reference() -> None:
    u, weight = children_and_weight(batch=1)
    assert torch.equal(route(u, weight), route(u, weight, backend="reference"))
    for kind in ("logits", "couplings", "outputs"):
        plain = getattr(trace_routing(u, weight, backend="reference"), kind)
        assert torch.equal(getattr(trace_routing(u, weight), kind), plain)


def test_numba_is_not_imported_before_it_is_needed() -> None:
    code = """
import sys, torch, capsnet.routing
assert "numba" not in sys.modules
capsnet.routing.route(torch.rand(2, 3, 2, dtype=torch.float64), torch.rand(3, 2, 2, 2, dtype=torch.float64))
assert "numba" not in sys.modules
capsnet.routing.route(torch.rand(2, 3, 2), torch.rand(3, 2, 2, 2))
assert "numba" in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, env=_environment(), timeout=120)


def test_without_numba_the_chunked_backend_takes_over() -> None:
    code = """
import sys
sys.modules["numba"] = None  # importing it now fails
import torch
from capsnet.routing import route
u, weight = torch.rand(2, 3, 2), torch.rand(3, 2, 2, 2)
assert torch.equal(route(u, weight), route(u, weight, backend="chunked"))
try:
    route(u, weight, backend="cpu")
except ValueError as error:
    assert "'cpu' cannot route torch.float32 on cpu" in str(error), error
else:
    raise AssertionError("no error")
"""
    subprocess.run([sys.executable, "-c", code], check=True, env=_environment(), timeout=120)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"u": torch.zeros(3, 11)}, "must be .batch, in_caps, in_dim."),
        ({"u": torch.zeros(3, 10, 5)}, "must be .batch, in_caps, in_dim."),
        ({"weight": torch.zeros(11, 5, 24)}, "in_caps, in_dim, out_caps, out_dim"),
        ({"bias": torch.zeros(6)}, r"bias \(6,\) must be \(4, 6\)"),
        ({"u": torch.zeros(3, 11, 5, dtype=torch.int64)}, "floating-point"),
        ({"u": torch.zeros(3, 11, 5, device="meta")}, "on one device"),
        ({"iterations": 0}, "at least 1"),
        ({"iterations": 3.0}, "whole number"),
        ({"gradient": "first"}, "'first' must be one of all, last"),
        ({"backend": "cuda"}, "'cuda' is none of auto, reference"),
        (
            {"backend": "cpu", "u": torch.zeros(3, 11, 5, dtype=torch.float64)},
            "cannot route torch.float64 on cpu here: it takes floats of 16 or 32 bits on a CPU",
        ),
    ],
)
def test_errors_say_what_and_why(change: dict[str, Any], message: str) -> None:
    u, weight = children_and_weight()
    with pytest.raises(ValueError, match=message):
        route(**{"u": u, "weight": weight, "iterations": 3} | change)


@pytest.mark.misuse
@pytest.mark.parametrize(
    ("change", "message"),
    [({"iterations": 0}, "at least 1"), ({"gradient": "first"}, "'first'"), ({"backend": "cuda"}, "'cuda'")],
)
def test_a_layer_refuses_its_options_when_it_is_made(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CapsuleLayer(11, 5, 4, 6, **change)


def test_a_layer_answers_in_the_dtype_of_its_weights() -> None:
    u, _ = children_and_weight()
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        layer = CapsuleLayer(11, 5, 4, 6, bias=True, dtype=dtype)
        assert layer(u).dtype == layer.weight.dtype == dtype


def _environment() -> dict[str, str]:
    source = str(Path(__file__).parents[2] / "src")
    return {**os.environ, "PYTHONPATH": source}
