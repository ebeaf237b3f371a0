"""The CPU backends that never store the votes, against the reference in float64."""

from __future__ import annotations

import multiprocessing
import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from capsnet._support import threads
from capsnet._support.numba_compiler import compiled
from capsnet.benchmark.measure import peak_extra_memory
from capsnet.routing import route
from closeness import poisoned

SOURCE = Path(__file__).parents[2] / "src"
FORWARD, BACKWARD = 1e-5, 1e-4  # relative to the largest number of the tensor


def results(
    tensors: list[Tensor], dv: Tensor, backend: str, dtype: torch.dtype, **options: Any
) -> list[Tensor]:
    """v, du, dW and, with a bias, its gradient."""
    leaves = [x.detach().to(dtype).requires_grad_() for x in tensors]
    u, weight, *bias = leaves
    v = route(u, weight, backend=backend, bias=bias[0] if bias else None, **options)
    return [v.detach(), *torch.autograd.grad(v, leaves, dv.to(dtype))]


def assert_like_reference(tensors: list[Tensor], dv: Tensor, backend: str, **options: Any) -> None:
    exact = results(tensors, dv, "reference", torch.float64, **options)
    with poisoned():
        ours = results(tensors, dv, backend, torch.float32, **options)
    for n, (a, b) in enumerate(zip(ours, exact, strict=True)):
        limit = BACKWARD if n else FORWARD
        assert (a - b).abs().max() <= limit * b.abs().max(), f"tensor {n} of v, du, dW, dbias"


def problem(
    batch: int, in_caps: int, in_dim: int, out_caps: int, out_dim: int, bias: bool = True
) -> list[Tensor]:
    """Children of length about 1, and votes of a size that makes routing decide."""
    generator = torch.Generator().manual_seed(batch + in_caps)
    u = torch.randn(batch, in_caps, in_dim, generator=generator) / in_dim**0.5
    weight = torch.randn(in_caps, in_dim, out_caps, out_dim, generator=generator)
    tensors = [u, weight * (2 / in_caps**0.5)]
    return [*tensors, torch.randn(out_caps, out_dim, generator=generator)] if bias else tensors


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    sizes=st.tuples(
        st.integers(1, 40), st.integers(1, 70), st.integers(1, 19), st.integers(1, 13), st.integers(1, 21)
    ),
    iterations=st.integers(1, 10),
    bias=st.booleans(),
    leaky=st.booleans(),
    gradient=st.sampled_from(["all", "last"]),
    backend=st.sampled_from(["cpu", "cpu", "chunked"]),
)
def test_any_size_and_option(
    sizes: tuple[int, ...], iterations: int, bias: bool, leaky: bool, gradient: str, backend: str
) -> None:
    tensors = problem(*sizes, bias=bias)
    dv = torch.randn(sizes[0], *sizes[3:], generator=torch.Generator().manual_seed(1))
    assert_like_reference(tensors, dv, backend, iterations=iterations, leaky=leaky, gradient=gradient)


@pytest.mark.parametrize("backend", ["cpu", "chunked"])
@pytest.mark.parametrize(
    "sizes",
    [
        (3, 1152, 8, 10, 16),  # the paper's
        (2, 12, 8, 1000, 16),  # many parents
        (270, 20, 8, 5, 16),  # more samples than are routed at a time
        (257, 20, 8, 5, 16),  # one more
    ],
    ids=str,
)
def test_large_sizes(sizes: tuple[int, ...], backend: str) -> None:
    dv = torch.randn(sizes[0], *sizes[3:], generator=torch.Generator().manual_seed(1))
    assert_like_reference(problem(*sizes), dv, backend, iterations=3, leaky=False, gradient="all")


@pytest.mark.parametrize("backend", ["cpu", "chunked"])
def test_any_strides(backend: str) -> None:
    u, weight, bias = problem(21, 18, 6, 4, 5)
    dv = torch.randn(21, 4, 5, generator=torch.Generator().manual_seed(1))
    expected = results([u, weight, bias], dv, backend, torch.float32, iterations=3)
    leaves = [x.requires_grad_() for x in (u, weight, bias)]
    crooked = (
        u.permute(2, 1, 0).contiguous().permute(2, 1, 0),
        weight.transpose(0, 3).contiguous().transpose(0, 3),
        bias.t().contiguous().t(),
    )
    assert not any(x.is_contiguous() for x in crooked)
    v = route(*crooked[:2], 3, bias=crooked[2], backend=backend)
    got = [v, *torch.autograd.grad(v, leaves, dv.permute(2, 0, 1).contiguous().permute(1, 2, 0))]
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("leaky", [False, True])
@pytest.mark.parametrize("sizes", [(8, 10, 16), (7, 3, 5), (9, 17, 20)])
def test_a_sample_does_not_depend_on_its_batch(sizes: tuple[int, int, int], leaky: bool) -> None:
    u, weight = problem(37, 50, *sizes, bias=False)
    dv = torch.randn(37, *sizes[1:], generator=torch.Generator().manual_seed(1))
    v, du, dweight = results([u, weight], dv, "cpu", torch.float32, iterations=3)
    singly = [
        results([u[n : n + 1], weight], dv[n : n + 1], "cpu", torch.float32, iterations=3) for n in range(37)
    ]
    assert torch.equal(v, torch.cat([one[0] for one in singly]))
    assert torch.equal(du, torch.cat([one[1] for one in singly]))
    torch.testing.assert_close(dweight, torch.stack([one[2] for one in singly]).sum(0), rtol=1e-4, atol=1e-5)


@pytest.mark.quick
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_same_bits_with_any_number_of_threads(threads: int) -> None:
    tensors = problem(20, 100, 8, 10, 16)
    dv = torch.randn(20, 10, 16, generator=torch.Generator().manual_seed(1))
    before = torch.get_num_threads()
    expected = results(tensors, dv, "cpu", torch.float32, iterations=3)
    try:
        torch.set_num_threads(threads)
        got = results(tensors, dv, "cpu", torch.float32, iterations=3)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(*pair) for pair in zip(got[:3], expected[:3], strict=True))
    torch.testing.assert_close(got[3], expected[3])  # PyTorch sums the bias


@pytest.mark.parametrize("openmp", [True, False])
def test_many_python_threads_at_once(monkeypatch: pytest.MonkeyPatch, openmp: bool) -> None:
    if not openmp:
        monkeypatch.setattr(threads, "_openmp", lambda: None)
    tensors = problem(4, 60, 8, 10, 16)
    dv = torch.randn(4, 10, 16, generator=torch.Generator().manual_seed(1))
    expected = results(tensors, dv, "cpu", torch.float32, iterations=3)
    with ThreadPoolExecutor(8) as pool:
        runs = [pool.submit(results, tensors, dv, "cpu", torch.float32, iterations=3) for _ in range(40)]
        for run in runs:
            assert all(torch.equal(*pair) for pair in zip(run.result(), expected, strict=True))


def _route_in_child(connection: Any, u: Tensor, weight: Tensor) -> None:
    connection.send(route(u, weight, backend="cpu").numpy())


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_works_after_a_fork() -> None:
    u, weight = problem(20, 30, 8, 10, 16, bias=False)
    expected = route(u, weight, backend="cpu")  # PyTorch's threads exist now, and the child will lack them
    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=_route_in_child, args=(theirs, u, weight))
    child.start()
    assert ours.poll(60), "the forked process hangs"
    assert torch.equal(torch.from_numpy(ours.recv()), expected)
    child.join()


class Pass:
    """Forward and backward of a routing; picklable, because memory is measured in a process of its own."""

    def __init__(self, backend: str, in_caps: int) -> None:
        self.backend, self.in_caps = backend, in_caps

    def __call__(self) -> Any:
        u = torch.randn(64, self.in_caps, 8, requires_grad=True)
        weight = torch.randn(self.in_caps, 8, 20, 16, requires_grad=True)
        return partial(self.run, u, weight)

    def run(self, u: Tensor, weight: Tensor) -> Any:
        return torch.autograd.grad(route(u, weight, 3, backend=self.backend).sum(), (u, weight))


@pytest.mark.parametrize(("backend", "stores"), [("cpu", False), ("chunked", False), ("reference", True)])
def test_memory_is_far_below_the_votes(backend: str, stores: bool) -> None:
    votes = 64 * 600 * 20 * 16 * 4
    extra = peak_extra_memory(Pass(backend, 600), torch.device("cpu"), Pass(backend, 8))
    assert (extra > votes) if stores else (extra < votes / 5)


@pytest.mark.slow
@pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="this is about AVX2")
def test_the_same_bits_without_avx512(tmp_path: Path) -> None:
    """Fewer registers of half the size: other groups of sums, in the same order."""
    code = """
import sys, torch
from routing.test_cpu import gradients_of_some
torch.save(gradients_of_some(), sys.argv[1])
from capsnet.routing.cpu import simd
print(simd.GROUP)
"""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(SOURCE), str(Path(__file__).parents[1])]),
        "NUMBA_CACHE_DIR": str(tmp_path),
        "NUMBA_CPU_NAME": "haswell",
        "NUMBA_CPU_FEATURES": "+avx2,+fma,+bmi,+bmi2,+f16c,+popcnt",
    }
    file = tmp_path / "gradients.pt"
    command = [sys.executable, "-c", code, str(file)]
    done = subprocess.run(command, check=True, env=environment, capture_output=True, text=True)
    assert done.stdout == "4\n"
    for ours, older in zip(gradients_of_some(), torch.load(file), strict=True):
        assert torch.equal(ours, older)


def gradients_of_some() -> list[Tensor]:
    """v, du, dW and the bias' gradient of problems with and without whole groups of numbers."""
    tensors = []
    for sizes in [(37, 50, 8, 10, 16), (21, 18, 6, 4, 5), (5, 9, 13, 3, 12), (1, 40, 7, 5, 18)]:
        dv = torch.randn(sizes[0], *sizes[3:], generator=torch.Generator().manual_seed(1))
        tensors += results(problem(*sizes), dv, "cpu", torch.float32, iterations=3)
    return tensors


@pytest.mark.slow
def test_compiles_once_and_says_so(tmp_path: Path) -> None:
    code = """
import torch
from capsnet.routing import route
print(route(torch.ones(1, 3, 2), torch.ones(3, 2, 2, 2), backend="cpu").sum().item())
"""
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "NUMBA_CACHE_DIR": str(tmp_path)}
    first, second = (
        subprocess.run(
            [sys.executable, "-c", code], check=True, env=environment, capture_output=True, text=True
        )
        for _ in range(2)
    )
    assert first.stderr.count("\n") == 1
    assert first.stderr.startswith("capsnet: compiling")
    assert second.stderr == ""
    assert first.stdout == second.stdout


def test_compiles_without_a_writable_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    from numba import float32
    from numba.core import caching

    monkeypatch.setattr(caching.CompileResultCacheImpl, "_locator_classes", [])
    assert compiled(float32(float32))(lambda x: x + 1)(2) == 3
