"""Times of many launch shapes of the Triton backend's kernels at the paper's sizes: the source of `plan_for`.

    python benchmarks/gpu_routing_sweep.py --out results/

Writes gpu_routing_sweep.csv into the directory given by --out, and prints the best shapes of each kernel.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from gpu_routing import SHORT, Case, captured, compile_ahead, machine, write_csv
from triton.testing import do_bench

from capsnet.routing import triton as backend


@dataclass(frozen=True)
class Trial:
    dtype: torch.dtype
    stage: str
    launch: backend.Launch
    share: int


def trials() -> Iterable[Trial]:
    for dtype in (torch.bfloat16, torch.float32):
        is_small = dtype == torch.bfloat16  # float32 has room in registers for fewer children
        shares = (6, 8, 12, 16, 24)
        tiles = ((32, 2), (64, 4), (128, 8))
        for (samples, warps), stages, share in itertools.product(tiles, (2, 3), shares):
            for children in (2, 4) if is_small else (2,):
                yield Trial(dtype, "forward", backend.Launch(samples, children, warps, stages), share)
            for hold in (True, False):
                launch = backend.Launch(samples, 2, warps, stages if hold else 1, hold)
                yield Trial(dtype, "backward", launch, share)
            for children in (4, 8):
                yield Trial(dtype, "uniform", backend.Launch(samples, children, warps, stages), share)
        tiles = ((32, 2), (64, 4), (64, 8), (128, 8))
        for (samples, warps), children, stages, registers in itertools.product(
            tiles, (2, 4, 8) if is_small else (2, 4), (1, 2, 3), (None, 128, 168)
        ):
            launch = backend.Launch(samples, children, warps, stages, max_registers=registers)
            yield Trial(dtype, "gradients", launch, 12)


def attempt(trial: Trial, compile_only: bool = False) -> float:
    """Microseconds of one launch of that stage; inf where it does not fit the device."""
    case = Case(dtype=trial.dtype)
    u, weight, _, dv = case.tensors()
    plan = backend.plan_for(u.shape, 1 if trial.dtype == torch.bfloat16 else 3, backend._processors(u.device))
    plan = replace(plan, children_per_program=trial.share, **{trial.stage: trial.launch})
    plain, backend.plan_for = backend.plan_for, lambda *_: plan  # type: ignore[assignment]
    try:
        run = backend._Run(u, weight, False)
        s_all = torch.randn(3, *run.parents, device="cuda")
        v_sum = run.split((torch.randn(run.parents, device="cuda") * 0.2).to(trial.dtype))
        softmax = tuple(torch.empty(case.batch, case.in_caps, device="cuda") for _ in range(2))
        call = {
            "uniform": lambda: run.sum_votes(v_sum, uniform=True),
            "forward": lambda: run.sum_votes(v_sum),
            "backward": lambda: run.sum_votes(v_sum, v_sum, softmax),
            "gradients": lambda: backend.backward(dv, u, weight, None, s_all, 3, False, "all"),
        }[trial.stage]
        call()
        torch.cuda.synchronize()
        return 0.0 if compile_only else 1e3 * do_bench(captured(call), warmup=3, rep=15, return_mode="median")
    except Exception as problem:  # out of shared memory or registers: not a candidate
        if "out of resource" not in str(problem).lower():
            print(trial, type(problem).__name__, str(problem)[:120], flush=True)
        return float("inf")
    finally:
        backend.plan_for = plain


def compile_one(trial: Trial) -> None:
    attempt(trial, compile_only=True)


def sweep(dtype: str, stage: str, workers: int) -> list[dict[str, Any]]:
    """Time of every launch shape. "gradients" is the time of a whole backward, of which only that kernel varies."""
    wanted = [trial for trial in trials() if (SHORT[trial.dtype], trial.stage) == (dtype, stage)]
    distinct = {trial.launch: trial for trial in wanted}
    print(f"{dtype} {stage}: {len(wanted)} trials, {len(distinct)} kernels to compile", flush=True)
    compile_ahead(compile_one, distinct.values(), workers)
    rows = [
        {"dtype": dtype, "stage": stage, **vars(t.launch), "share": t.share, "us": round(attempt(t), 1)}
        for t in wanted
    ]
    for row in sorted(rows, key=lambda row: row["us"])[:6]:
        print("  " + " ".join(f"{key}={value}" for key, value in list(row.items())[2:]), flush=True)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="directory for the results")
    parser.add_argument("--stages", default="uniform,forward,backward,gradients")
    parser.add_argument("--dtypes", default="bfloat16,float32")
    parser.add_argument("--workers", type=int, default=12, help="processes that compile")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    print(machine())
    rows: list[dict[str, Any]] = []
    for dtype, stage in itertools.product(options.dtypes.split(","), options.stages.split(",")):
        rows += sweep(dtype, stage, options.workers)
        write_csv(options.out / "gpu_routing_sweep.csv", [row | machine() for row in rows])
    return 0


if __name__ == "__main__":
    sys.exit(main())
