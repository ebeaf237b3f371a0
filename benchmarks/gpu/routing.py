"""Routing on a GPU: parity of every fast path with float64, then times, interleaved.

Where the numbers of a path differ, it gets no times.
"""

from __future__ import annotations

import importlib
from dataclasses import asdict, dataclass
from math import isfinite
from types import ModuleType
from typing import Any

import torch
from benchmarks.gpu.runner import Setting
from benchmarks.gpu.timing import Call, timed
from torch import Tensor

from capsnet.routing import reference
from capsnet.routing.cuda import backend

SHORT = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}
#: Largest relative error of v and of gradients.
TOLERANCE = {torch.float32: (1e-5, 1e-4), torch.bfloat16: (1e-2, 1e-2), torch.float16: (1e-3, 2e-3)}


@dataclass(frozen=True)
class Case:
    batch: int = 128
    in_caps: int = 1152
    in_dim: int = 8
    out_caps: int = 10
    out_dim: int = 16
    iterations: int = 3
    bias: bool = False
    leaky: bool = False
    gradient: str = "all"
    dtype: torch.dtype = torch.float32

    def tensors(self, device: str) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
        """Return u with realistic lengths, and a W that makes couplings differ."""
        options: dict[str, Any] = {"generator": torch.Generator(device).manual_seed(0), "device": device}
        u = torch.randn(self.batch, self.in_caps, self.in_dim, **options) * 0.2
        weight = torch.randn(self.in_caps, self.in_dim, self.out_caps, self.out_dim, **options) * 0.3
        bias = torch.randn(self.out_caps, self.out_dim, **options) * 0.1 if self.bias else None
        dv = torch.randn(self.batch, self.out_caps, self.out_dim, **options)
        return u.to(self.dtype), weight.to(self.dtype), bias, dv.to(self.dtype)


CASES = [
    Case(),
    Case(iterations=1),
    Case(iterations=2),
    Case(iterations=5),
    Case(gradient="last"),
    Case(gradient="last", iterations=1),
    Case(bias=True),
    Case(leaky=True, bias=True),
    Case(batch=1),
    Case(batch=63, in_caps=37, leaky=True),
    Case(batch=5, in_caps=100, in_dim=3, out_caps=7, out_dim=5, iterations=4, bias=True),
    Case(batch=33, in_caps=2048, in_dim=16, out_caps=5, out_dim=24),
    Case(batch=130, in_caps=100, out_caps=20, out_dim=16),
    Case(batch=17, in_caps=50, in_dim=32, out_caps=32, out_dim=33, iterations=2),
    Case(batch=512),
    Case(batch=8, in_caps=32, out_caps=1000, iterations=2),  # too large for the kernels: chunked
    Case(dtype=torch.bfloat16),
    Case(dtype=torch.bfloat16, leaky=True, gradient="last"),
    Case(dtype=torch.bfloat16, batch=63, in_caps=37, in_dim=5, out_dim=20),
    Case(dtype=torch.bfloat16, batch=130, out_caps=20, iterations=5),
    Case(dtype=torch.float16),
    Case(dtype=torch.float16, bias=True, iterations=2),
]
SMALL = [Case(2, 5, 3, 2, 5, 2, bias=True), Case(2, 3, 2, 2, 4, 2, leaky=True, dtype=torch.bfloat16)]


def kernels() -> dict[str, ModuleType]:
    """Return the Triton kernels by name: the package's, and those that `pack` exported from another commit."""
    try:
        other = importlib.import_module("benchmarks.gpu.other.backend")
    except ImportError:
        return {"triton": backend}
    return {"triton": backend, "triton of 8539ffb": other}


def smoke(setting: Setting) -> None:
    """Raise if the package's kernels do not compile or do not agree, at two small shapes."""
    for case in SMALL:
        found = _errors(backend, case, setting.device)
        assert _agrees(case, found), f"{case}: {found}"


def compare(setting: Setting) -> Any:
    """Return parity and times of the kernels, of the reference, and of `torch.compile` of it."""
    parity = []
    for name, module in kernels().items():
        for case in SMALL if setting.toy else CASES:
            found = _errors(module, case, setting.device)
            about = {**asdict(case), "dtype": SHORT[case.dtype]}
            parity.append({"kernels": name, "ok": _agrees(case, found), "case": about, **without_nan(found)})
            print(f"{name}: {'ok  ' if parity[-1]['ok'] else 'FAIL'} {case} {found}", flush=True)
    times = []
    for case in SMALL[:1] if setting.toy else (Case(), Case(dtype=torch.bfloat16)):
        dtype = SHORT[case.dtype]
        bad = {row["kernels"] for row in parity if row["case"]["dtype"] == dtype and not row["ok"]}
        good = [name for name in kernels() if name not in bad]
        for row in timed(_implementations(case, good, setting), setting):
            times.append({"dtype": dtype, **row})
            print(times[-1], flush=True)
    return {"parity": parity, "times": times}


def _run(module: Any, case: Case, u: Tensor, weight: Tensor, bias: Tensor | None, dv: Tensor) -> Any:
    v, s_all = module.forward(u, weight, bias, case.iterations, case.leaky)
    options = (case.iterations, case.leaky, case.gradient)
    du, dweight, dbias = module.backward(dv, u, weight, bias, s_all, *options)
    return {"v": v, "du": du, "dweight": dweight} | ({} if dbias is None else {"dbias": dbias})


def _errors(module: Any, case: Case, device: str) -> dict[str, float]:
    """Return relative errors against float64; NaN for unwritten elements."""
    inputs = case.tensors(device)
    empty, empty_like = torch.empty, torch.empty_like
    torch.empty = lambda *a, **o: empty(*a, **o).fill_(torch.nan)  # type: ignore[assignment]
    torch.empty_like = lambda *a, **o: empty_like(*a, **o).fill_(torch.nan)  # type: ignore[assignment]
    try:
        found, again = (_run(module, case, *inputs) for _ in range(2))
    finally:
        torch.empty, torch.empty_like = empty, empty_like
    exact = [x.double().requires_grad_() for x in inputs[:3] if x is not None]
    options: Any = {
        "bias": exact[2] if case.bias else None,
        "leaky": case.leaky,
        "gradient": case.gradient,
    }
    v = reference.route(exact[0], exact[1], case.iterations, **options)
    wanted = [v, *torch.autograd.grad(v, exact, inputs[3].double())]
    result = {name: error_of(x, y) for (name, x), y in zip(found.items(), wanted, strict=True)}
    return result | {"differs": float(any(not torch.equal(found[name], again[name]) for name in found))}


@torch.no_grad()
def error_of(found: Tensor, exact: Tensor) -> float:
    return float((found.double() - exact).norm() / exact.norm().clamp(min=1e-30))


def _agrees(case: Case, found: dict[str, float]) -> bool:
    of_v, of_gradients = TOLERANCE[case.dtype]
    return all(x <= (of_v if name == "v" else of_gradients) for name, x in found.items())


def without_nan(errors: dict[str, float]) -> dict[str, float | None]:
    return {name: x if isfinite(x) else None for name, x in errors.items()}


def _implementations(case: Case, names: list[str], setting: Setting) -> dict[str, Call]:
    """Return calls, forward and backward, of the reference and the kernels."""
    u, weight, bias, dv = case.tensors(setting.device)
    leaves = u.clone().requires_grad_(), weight.clone().requires_grad_()
    compiled = torch.compile(reference.route, backend="aot_eager" if setting.toy else "inductor")

    def plain(function: Any) -> Call:
        return lambda: torch.autograd.grad(function(*leaves, case.iterations), leaves, dv)

    modules = kernels()
    ours = {name: lambda m=modules[name]: _run(m, case, u, weight, bias, dv) for name in names}
    return {"reference": plain(reference.route), "compiled reference": plain(compiled), **ours}
