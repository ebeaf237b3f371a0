"""Compare the Triton backend with the reference on a GPU, in one run.

    python benchmarks/gpu_routing.py --out results/

Parity with float64 comes first, and where it fails there are no timings. Times are medians of CUDA events,
interleaved over rounds; "graph" replays a CUDA graph, so that what is timed is the device, not Python.
Writes gpu_routing.json and gpu_routing.csv into the directory given by --out.
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
import statistics
import sys
from collections.abc import Callable
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import torch
import triton
from torch import Tensor
from triton.testing import do_bench

from capsnet.routing import reference, route
from capsnet.routing.cuda import backend

PAPER = {"batch": 128, "in_caps": 1152, "in_dim": 8, "out_caps": 10, "out_dim": 16}
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

    def tensors(self, seed: int = 0) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
        """Return u with realistic lengths, and a W that makes couplings differ."""
        draw = torch.Generator("cuda").manual_seed(seed)
        new = {"generator": draw, "device": "cuda"}
        u = torch.randn(self.batch, self.in_caps, self.in_dim, **new) * 0.2
        weight = torch.randn(self.in_caps, self.in_dim, self.out_caps, self.out_dim, **new) * 0.3
        bias = torch.randn(self.out_caps, self.out_dim, **new) * 0.1 if self.bias else None
        dv = torch.randn(self.batch, self.out_caps, self.out_dim, **new)
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


def run_backend(case: Case, u: Tensor, weight: Tensor, bias: Tensor | None, dv: Tensor) -> dict[str, Tensor]:
    v, s_all = backend.forward(u, weight, bias, case.iterations, case.leaky)
    du, dweight, dbias = backend.backward(
        dv, u, weight, bias, s_all, case.iterations, case.leaky, case.gradient
    )
    found = {"v": v, "du": du, "dweight": dweight}
    return found if dbias is None else found | {"dbias": dbias}


def errors(case: Case) -> dict[str, float]:
    """Return relative errors against float64; NaN for unwritten elements."""
    u, weight, bias, dv = case.tensors()
    empty, empty_like = torch.empty, torch.empty_like
    torch.empty = lambda *a, **o: empty(*a, **o).fill_(torch.nan)  # type: ignore[assignment]
    torch.empty_like = lambda *a, **o: empty_like(*a, **o).fill_(torch.nan)  # type: ignore[assignment]
    try:
        found = run_backend(case, u, weight, bias, dv)
        again = run_backend(case, u, weight, bias, dv)
    finally:
        torch.empty, torch.empty_like = empty, empty_like
    inputs = [x.double().requires_grad_() for x in (u, weight, bias) if x is not None]
    options: Any = {"bias": inputs[2] if case.bias else None, "leaky": case.leaky, "gradient": case.gradient}
    v = reference.route(inputs[0], inputs[1], case.iterations, **options)
    wanted = [v, *torch.autograd.grad(v, inputs, dv.double())]
    result = {
        name: ((x.double() - y).norm() / y.norm()).item()
        for (name, x), y in zip(found.items(), wanted, strict=True)
    }
    result["differs between runs"] = float(any(not torch.equal(found[name], again[name]) for name in found))
    return result


def parity() -> tuple[bool, list[dict[str, Any]]]:
    rows, good = [], True
    for case in CASES:
        for_v, for_grads = TOLERANCE[case.dtype]
        found = errors(case)
        ok = all(x <= (for_v if name == "v" else for_grads) for name, x in found.items())
        good &= ok
        rows.append({"case": str(case), "ok": ok, **found})
        shown = " ".join(f"{name} {x:.1e}" for name, x in found.items())
        print(f"{'ok  ' if ok else 'FAIL'} {astuple(case)[:9]} {SHORT[case.dtype]}: {shown}", flush=True)
        torch.cuda.empty_cache()
    return good, rows


def timed_functions(case: Case) -> dict[tuple[str, str], Callable[[], Any]]:
    """Return calls by (what, how), of each implementation."""
    u, weight, _, dv = case.tensors()
    u.requires_grad_()
    weight.requires_grad_()
    compiled = torch.compile(reference.route)
    implementations: dict[str, Callable[[], Tensor]] = {
        "reference": lambda: reference.route(u, weight, case.iterations),
        "compiled reference": lambda: compiled(u, weight, case.iterations),
        "triton": lambda: route(u, weight, case.iterations, backend="triton"),
    }

    def forward(call: Callable[[], Tensor]) -> Callable[[], Any]:
        return torch.no_grad()(call)

    def both(call: Callable[[], Tensor]) -> Callable[[], Any]:
        return lambda: torch.autograd.grad(call(), (u, weight), dv)

    return {("forward", name): forward(call) for name, call in implementations.items()} | {
        ("forward + backward", name): both(call) for name, call in implementations.items()
    }


def captured(call: Callable[[], Any]) -> Callable[[], Any]:
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept = call()
    return lambda: (graph.replay(), kept)


def memory(call: Callable[[], Any]) -> float:
    """Return the peak memory of a call in MiB, without the memory held before."""
    call()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    kept = call()
    torch.cuda.synchronize()
    del kept
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def measure(case: Case, rounds: int) -> list[dict[str, Any]]:
    calls = timed_functions(case)
    for call in calls.values():
        for _ in range(3):
            call()
    peaks = {key: memory(call) for key, call in calls.items()}
    variants = {(*key, "launched"): call for key, call in calls.items()}
    variants |= {(*key, "graph"): captured(call) for key, call in calls.items()}
    times: dict[tuple[str, ...], list[float]] = {key: [] for key in variants}
    for _ in range(rounds):
        for key, call in variants.items():
            times[key].append(1e3 * do_bench(call, warmup=10, rep=60, return_mode="median"))
    rows = []
    for (what, name, how), samples in times.items():
        ours = statistics.median(times[what, "triton", how])
        median = statistics.median(samples)
        rows.append(
            {
                "dtype": SHORT[case.dtype],
                "what": what,
                "how": how,
                "implementation": name,
                "us": round(median, 1),
                "us_min": round(min(samples), 1),
                "us_max": round(max(samples), 1),
                "times_triton": round(median / ours, 2),
                "peak_MiB": round(peaks[what, name], 2),
            }
        )
    return sorted(rows, key=lambda row: (row["what"], row["how"]))


def kernels(case: Case) -> list[dict[str, Any]]:
    """Return the device time of each kernel in one forward and backward pass."""
    call = timed_functions(case)["forward + backward", "triton"]
    for _ in range(3):
        call()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for _ in range(20):
            call()
        torch.cuda.synchronize()
    events = sorted(profile.key_averages(), key=lambda event: -event.self_device_time_total)
    return [
        {
            "kernel": event.key[:60],
            "calls": event.count / 20,
            "us_each": round(event.self_device_time_total / event.count, 1),
        }
        for event in events
        if event.self_device_time_total
    ]


def table(rows: list[dict[str, Any]]) -> str:
    names = list(rows[0])
    cells = [names, *([str(row[name]) for name in names] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(names))]
    return "\n".join("  ".join(x.ljust(w) for x, w in zip(row, widths, strict=True)) for row in cells)


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def machine() -> dict[str, str]:
    return {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "cuda": str(torch.version.cuda),
        "python": platform.python_version(),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="directory for the results")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.backends.cuda.matmul.allow_tf32 = False
    print(machine())

    good, checks = parity()
    report: dict[str, Any] = {"machine": machine(), "sizes": PAPER, "iterations": 3, "parity": checks}
    if good:
        cases = [Case(dtype=dtype) for dtype in (torch.float32, torch.bfloat16)]
        report["times"] = [row | machine() for case in cases for row in measure(case, options.rounds)]
        report["kernels"] = {SHORT[case.dtype]: kernels(case) for case in cases}
        print(table([{k: v for k, v in row.items() if k not in machine()} for row in report["times"]]))
        for dtype, rows in report["kernels"].items():
            print(f"\n{dtype}\n{table(rows)}")
        write_csv(options.out / "gpu_routing.csv", report["times"])
    (options.out / "gpu_routing.json").write_text(json.dumps(report, indent=1))
    if not good:
        print("PARITY FAILS: no timings")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
