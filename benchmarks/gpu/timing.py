"""Time calls on a GPU in turn, as replayed CUDA graphs, and measure their memory."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from benchmarks.gpu.runner import Setting

Call = Callable[[], Any]


def timed(calls: dict[str, Call], setting: Setting, rounds: int = 5) -> list[dict[str, Any]]:
    """Return the time of each call, in turn: on a GPU of a replayed CUDA graph, so that Python does not count."""
    peaks = {name: _memory(call, setting) for name, call in calls.items()}
    ready = calls if setting.toy else {name: _captured(call) for name, call in calls.items()}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(1 if setting.toy else rounds):
        for name, call in ready.items():
            times[name].append(_microseconds(call, setting))
    return [
        {
            "implementation": name,
            "us": round(statistics.median(found), 1),
            "us_min": round(min(found), 1),
            "us_max": round(max(found), 1),
            "peak_MiB": round(peaks[name], 2),
        }
        for name, found in times.items()
    ]


def _microseconds(call: Call, setting: Setting) -> float:
    if setting.toy:
        start = time.perf_counter()
        call()
        return 1e6 * (time.perf_counter() - start)
    from triton.testing import do_bench

    return 1e3 * float(do_bench(call, warmup=10, rep=60, return_mode="median"))


def _captured(call: Call) -> Call:
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


def _memory(call: Call, setting: Setting) -> float:
    """Return the peak memory of a call in MiB, without the memory held before."""
    if setting.toy:
        return 0.0
    call()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    kept = call()
    torch.cuda.synchronize()
    del kept
    return (torch.cuda.max_memory_allocated() - before) / 2**20
