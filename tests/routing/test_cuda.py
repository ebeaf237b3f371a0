"""The Triton kernels, on a GPU if there is one, else interpreted on the CPU in one subprocess."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from capsnet.routing import agree, log_normaliser, reference, route
from capsnet.routing.cuda import backend

if sys.platform != "linux":
    pytest.importorskip("triton", reason="Triton has wheels for Linux alone")

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
needs_kernels = pytest.mark.skipif(
    not INTERPRETED and not torch.cuda.is_available(), reason="runs in test_interpreted, or on a GPU"
)
gpu = pytest.mark.skipif(INTERPRETED or not torch.cuda.is_available(), reason="needs a CUDA device")

#: Largest relative error of outputs and gradients: the dtype's own rounding, or float32's sums.
TOLERANCE = {torch.float32: (1e-5, 1e-4), torch.bfloat16: (1e-2, 1e-2), torch.float16: (1e-3, 2e-3)}


class Case(NamedTuple):
    batch: int = 3
    in_caps: int = 7
    in_dim: int = 8
    out_caps: int = 3
    out_dim: int = 16
    iterations: int = 3
    bias: bool = False
    leaky: bool = False
    gradient: str = "all"
    u_dtype: torch.dtype = torch.float32
    weight_dtype: torch.dtype = torch.float32


def tensors(case: Case, scale: float = 0.5) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    random = torch.Generator().manual_seed(hash(case[:6]) % 2**31)
    draw = lambda *shape: torch.randn(shape, generator=random)  # noqa: E731
    u = scale * draw(case.batch, case.in_caps, case.in_dim)
    weight = 0.3 * draw(case.in_caps, case.in_dim, case.out_caps, case.out_dim)
    bias = 0.1 * draw(case.out_caps, case.out_dim) if case.bias else None
    dv = draw(case.batch, case.out_caps, case.out_dim)
    move = lambda x, dtype: x.to(DEVICE, dtype)  # noqa: E731
    return (
        move(u, case.u_dtype),
        move(weight, case.weight_dtype),
        None if bias is None else move(bias, torch.float32),
        move(dv, torch.promote_types(case.u_dtype, case.weight_dtype)),
    )


def expected(case: Case, u: Tensor, weight: Tensor, bias: Tensor | None, dv: Tensor) -> list[Tensor]:
    """v and the gradients of u, weight and bias in float64, by the reference."""
    inputs = [x.double().requires_grad_() for x in (u, weight, bias) if x is not None]
    options = {"bias": inputs[2] if case.bias else None, "leaky": case.leaky, "gradient": case.gradient}
    v = reference.route(inputs[0], inputs[1], case.iterations, **options)
    return [v, *torch.autograd.grad(v, inputs, dv.double())]


def error(found: Tensor, wanted: Tensor) -> float:
    return ((found.double() - wanted).norm() / wanted.norm()).item()


def check(case: Case, scale: float = 0.5) -> None:
    u, weight, bias, dv = tensors(case, scale)
    v, s_all = backend.forward(u, weight, bias, case.iterations, case.leaky)
    grads = backend.backward(dv, u, weight, bias, s_all, case.iterations, case.leaky, case.gradient)
    found = [v, *(x for x in grads if x is not None)]
    wanted = expected(case, u, weight, bias, dv)
    lowest = min((u.dtype, weight.dtype), key=lambda dtype: dtype.itemsize)
    for_v, for_grads = TOLERANCE[lowest]
    for name, x, y in zip(("v", "du", "dweight", "dbias"), found, wanted, strict=False):
        assert x.shape == y.shape
        assert error(x, y) < (for_v if name == "v" else for_grads), f"{name} of {case}"
    assert s_all.dtype == torch.float32
    assert [x.dtype for x in found[1:3]] == [u.dtype, weight.dtype]


@pytest.fixture(autouse=True)
def poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fresh memory holds NaN: an output that nothing wrote shows."""
    empty, empty_like = torch.empty, torch.empty_like

    def poisoned(x: Tensor) -> Tensor:
        return x.fill_(torch.nan) if x.is_floating_point() else x

    monkeypatch.setattr(torch, "empty", lambda *args, **options: poisoned(empty(*args, **options)))
    monkeypatch.setattr(torch, "empty_like", lambda *args, **options: poisoned(empty_like(*args, **options)))


@pytest.mark.slow
@pytest.mark.skipif(INTERPRETED, reason="this is the subprocess")
def test_interpreted() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@needs_kernels
@pytest.mark.parametrize(
    "case",
    [
        Case(iterations=1),
        Case(iterations=2, leaky=True, bias=True),
        Case(),
        Case(batch=1, in_caps=1, out_caps=1),
        Case(batch=2, in_caps=5, in_dim=3, out_caps=5, out_dim=5, iterations=5, bias=True),
        Case(batch=35, in_caps=3, out_caps=2, leaky=True),  # several blocks of samples
        Case(batch=2, in_caps=50, in_dim=2, out_caps=2, out_dim=4, iterations=2),  # several programs
        Case(batch=2, in_caps=5, in_dim=32, out_caps=2, out_dim=33, iterations=2, bias=True),
        Case(batch=2, in_caps=3, in_dim=1, out_caps=18, out_dim=1, iterations=2),
        Case(gradient="last", bias=True),
        Case(gradient="last", iterations=1, leaky=True, bias=True),
    ],
    ids=str,
)
def test_agrees_with_the_reference(case: Case) -> None:
    check(case)


@needs_kernels
@settings(
    deadline=None,
    derandomize=True,
    max_examples=6,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    sizes=st.tuples(*(st.integers(1, largest) for largest in (5, 9, 9, 4, 9, 4))),
    options=st.tuples(st.booleans(), st.booleans(), st.sampled_from(["all", "last"])),
)
def test_agrees_with_the_reference_for_any_sizes(
    sizes: tuple[int, ...], options: tuple[bool, bool, str]
) -> None:
    check(Case(*sizes, *options))


@needs_kernels
@pytest.mark.parametrize(
    "dtypes",
    [
        (torch.bfloat16, torch.bfloat16),
        (torch.float16, torch.float16),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float16),
    ],
    ids=str,
)
def test_16_bit_inputs(dtypes: tuple[torch.dtype, torch.dtype]) -> None:
    check(Case(4, 9, 8, 3, 16, 2, True, False, "all", *dtypes))


@needs_kernels
def test_large_logits_do_not_overflow() -> None:
    check(Case(iterations=3, leaky=True), scale=100.0)


@needs_kernels
def test_children_of_length_zero_have_finite_gradients() -> None:
    u, weight, _, _ = tensors(Case(batch=2))
    u = torch.zeros_like(u).requires_grad_()
    v = route(u, weight.requires_grad_(), 3, backend="triton")
    v.sum().backward()
    assert not v.any()
    assert u.grad is not None
    assert weight.grad is not None
    assert not u.grad.any()
    assert not weight.grad.any()


@needs_kernels
def test_sizes_beyond_a_programs_registers_are_routed_too() -> None:
    check(Case(batch=2, in_caps=4, out_caps=backend.MAX_OUT_CAPS + 1))
    check(Case(batch=2, in_caps=4, out_dim=backend.MAX_OUT_DIM + 1))
    check(Case(batch=2, in_caps=4, in_dim=backend.MAX_IN_DIM + 1))


@needs_kernels
def test_an_empty_batch() -> None:
    u, weight, _, _ = tensors(Case())
    assert route(u[:0], weight, 3, backend="triton").shape == (0, 3, 16)


@needs_kernels
def test_any_strides() -> None:
    u, weight, _, _ = tensors(Case())
    transposed = u.transpose(0, 1).contiguous().transpose(0, 1).requires_grad_()
    route(transposed, weight, 2, backend="triton").sum().backward()  # the gradient of a sum has stride 0
    plain = u.clone().requires_grad_()
    route(plain, weight, 2, backend="triton").sum().backward()
    assert transposed.grad is not None
    torch.testing.assert_close(transposed.grad, plain.grad, rtol=0, atol=0)


def agreement(
    sizes: tuple[int, ...], rows: int | None, names: tuple[str, ...], function: Any, backend: str, leaky: bool
) -> list[Tensor]:
    """Outputs of `agree` or `log_normaliser`, and the gradients of all inputs, in float64."""
    batch, in_caps, in_dim, out_caps, out_dim = sizes
    random = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(shape, generator=random, dtype=torch.float64).to(DEVICE)  # noqa: E731
    dim = out_dim * (rows or 1)
    optional = {
        "query": draw(batch, out_caps, dim),
        "precision": draw(batch, out_caps, dim).square(),
        "offset": draw(batch, out_caps),
        "activations": draw(batch, in_caps).sigmoid(),
        "normaliser": draw(batch, in_caps) + 2,
        "centre": draw(batch, out_caps, dim),
    }
    u, weight = (
        draw(batch, in_caps, *([rows] if rows else []), in_dim),
        draw(in_caps, in_dim, out_caps, out_dim),
    )
    given = {name: optional[name] for name in names}
    leaves = [x.requires_grad_() for name, x in {"u": u, "w": weight, **given}.items() if name != "centre"]
    found = function(u, weight, **given, leaky=leaky, backend=backend)
    outputs = [x for x in (found if isinstance(found, tuple) else (found,)) if x is not None]
    seen = [torch.cos(torch.arange(x.numel(), device=DEVICE).double()).view_as(x) for x in outputs]
    gradients = torch.autograd.grad(outputs, leaves, seen, allow_unused=True, materialize_grads=True)
    return [*(x.detach() for x in outputs), *gradients]


ALL = ("query", "precision", "offset", "activations", "normaliser", "centre")


@needs_kernels
@pytest.mark.parametrize(
    ("sizes", "rows", "names", "function", "leaky"),
    [
        ((3, 7, 5, 3, 6), None, ALL, agree, False),
        ((3, 7, 5, 3, 6), 3, ALL, agree, False),
        ((5, 3, 4, 3, 4), 4, ALL[:4], agree, True),
        ((1, 1, 2, 1, 1), None, ALL[:2], agree, False),  # one child, one parent
        ((2, 50, 2, 2, 4), None, ("query",), agree, False),  # several programs
        ((300, 2, 2, 2, 3), None, ("offset", "precision"), agree, False),  # several blocks of samples
        ((3, 5, 2, 3, 2), 2, (*ALL[:3], "centre"), log_normaliser, True),
        ((2, 3, 2, 40, 60), None, ("query",), agree, False),  # beyond a program's registers
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_passes_of_agree_equal_the_reference(
    sizes: tuple[int, ...], rows: int | None, names: tuple[str, ...], function: Any, leaky: bool
) -> None:
    found, wanted = (agreement(sizes, rows, names, function, name, leaky) for name in ("triton", "reference"))
    for x, y in zip(found, wanted, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-10, atol=1e-10)


def test_available_only_where_it_can_run() -> None:
    u = torch.zeros(2, 3, 4)
    assert backend.is_available(u) == INTERPRETED
    assert not backend.is_available(u.double())
    if torch.cuda.is_available():
        assert backend.is_available(u.cuda())


PAPER = Case(batch=128, in_caps=1152, out_caps=10)


@gpu
@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_same_bits_in_every_run(dtype: torch.dtype) -> None:
    u, weight, _, dv = tensors(PAPER._replace(u_dtype=dtype, weight_dtype=dtype), 0.1)

    def run() -> list[Tensor]:
        v, s_all = backend.forward(u, weight, None, 3, False)
        du, dweight, _ = backend.backward(dv, u, weight, None, s_all, 3, False, "all")
        return [v, s_all, du, dweight]

    first = run()
    for _ in range(10):
        assert all(torch.equal(x, y) for x, y in zip(first, run(), strict=True))


@gpu
@pytest.mark.gpu
def test_compiles_whole_and_is_captured_in_a_cuda_graph() -> None:
    u, weight, bias, dv = tensors(PAPER._replace(bias=True), 0.1)
    leaves = [x.requires_grad_() for x in (u, weight, bias) if x is not None]

    def step() -> list[Tensor]:
        v = route(u, weight, 3, bias=bias, backend="triton")
        return [v, *torch.autograd.grad(v, leaves, dv)]

    wanted = step()
    compiled = torch.compile(lambda: route(u, weight, 3, bias=bias, backend="triton"), fullgraph=True)
    torch.testing.assert_close(compiled(), wanted[0], rtol=0, atol=0)

    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    for x in captured:
        x.detach().zero_()
    graph.replay()
    for x, y in zip(captured, wanted, strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=0)


def compiled_by(monkeypatch: pytest.MonkeyPatch, kernels: Any) -> list[bytes]:
    """Let the kernels of a module be compiled for an H100 where they would be launched, and return the programs."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile
    from triton.runtime import JITFunction

    names = {torch.float32: "*fp32", torch.bfloat16: "*bf16"}
    options = ("num_warps", "num_stages", "maxnreg")
    compiled = []

    class Compiler:
        def __init__(self, kernel: JITFunction) -> None:
            self.kernel = kernel

        def __getitem__(self, grid: tuple[int, ...]) -> Compiler:
            assert all(grid)
            return self

        def __call__(self, *args: Tensor | int, **constants: object) -> None:
            where = [p.name for p in self.kernel.params]
            launch = {name: constants.pop(name) for name in options if name in constants}
            types = [names[x.dtype] if isinstance(x, Tensor) else "i32" for x in args]
            source = ASTSource(
                self.kernel,
                dict(zip(where, types, strict=False)) | dict.fromkeys(constants, "constexpr"),
                {(where.index(name),): value for name, value in constants.items()},
                {(i,): [["tt.divisibility", 16]] for i, x in enumerate(args) if isinstance(x, Tensor)},
            )
            compiled.append(compile(source, GPUTarget("cuda", 90, 32), launch).asm["cubin"])

    for name, kernel in vars(kernels).copy().items():
        if isinstance(kernel, JITFunction) and not name.startswith("_"):
            monkeypatch.setattr(kernels, name, Compiler(kernel))
    monkeypatch.setattr(sys.modules[__name__], "DEVICE", "cpu")
    monkeypatch.setattr(backend, "processors", lambda device: 132)
    return compiled


@pytest.mark.slow
@pytest.mark.skipif(INTERPRETED, reason="needs Triton's compiler")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_kernels_compile_for_a_gpu_that_is_not_here(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a call at the paper's size would launch, through ptxas: needs no GPU, only its compiler."""
    from capsnet.routing.cuda import kernels

    compiled = compiled_by(monkeypatch, kernels)
    case = PAPER._replace(batch=64, in_caps=32, iterations=2, u_dtype=dtype, weight_dtype=dtype)
    monkeypatch.setattr(backend, "_precision", lambda u, w: "bf16" if dtype == torch.bfloat16 else "float32")
    u, weight, bias, dv = tensors(case)
    v, s_all = backend.forward(u, weight, bias, 2, False)
    backend.backward(dv, u, weight, bias, s_all, 2, False, "all")
    assert v.shape == (64, 10, 16)
    assert len(compiled) == 4 + 4


@pytest.mark.slow
@pytest.mark.skipif(INTERPRETED, reason="needs Triton's compiler")
@pytest.mark.parametrize("rows", [None, 4])
def test_passes_of_agree_compile_for_an_h100(monkeypatch: pytest.MonkeyPatch, rows: int | None) -> None:
    """Without a GPU, at the paper's size and at that of matrix capsules."""
    from capsnet.routing.agree_reference import Inputs
    from capsnet.routing.cuda import agree_backend, agree_kernels

    compiled = compiled_by(monkeypatch, agree_kernels)
    _, in_dim, parents, dim = (32, 4, 32, 4) if rows else (32, 8, 10, 16)
    u, weight = torch.zeros(64, 32, *([4] if rows else []), in_dim), torch.zeros(32, in_dim, parents, dim)
    poses = torch.zeros(64, parents, dim * (rows or 1))
    per_parent, per_child = torch.zeros(64, parents), torch.zeros(64, 32)
    given = Inputs(u, weight, poses, poses, per_parent, per_child, per_child, poses)
    agree_backend.forward(given, False, False)
    agree_backend.backward((per_parent, poses, poses), given, False, False)
    agree_backend.forward(given._replace(activations=None, normaliser=None), True, True)
    assert len(compiled) == 4
