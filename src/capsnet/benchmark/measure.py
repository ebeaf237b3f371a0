"""Measure time and peak memory."""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True)
class Result:
    """Hold one quantity of reference and fast path, from the same run."""

    case: str
    quantity: str
    """"seconds" or "bytes"."""
    reference: float | None
    """Median of the plain path; None if it cannot run because its votes do not fit."""
    fast: float
    reference_spread: tuple[float, float] | None
    """Quartiles."""
    fast_spread: tuple[float, float] | None
    repeats: int
    parity: float | None
    """Largest relative difference of outputs and gradients; None without a reference."""

    @property
    def ratio(self) -> float | None:
        """Return the speed-up: the reference's value divided by the fast path's."""
        return None if self.reference is None or self.fast <= 0 else self.reference / self.fast

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for JSON and CSV."""
        return {**asdict(self), "ratio": self.ratio}


def interleaved(
    functions: dict[str, Callable[[], object]], device: torch.device, seconds: float, least: int = 7
) -> dict[str, list[float]]:
    """Time functions in turn, so that other load affects all of them equally.

    Args:
        functions: functions by name; each runs once before the timing starts.
        device: on a GPU, the clock stops after a synchronisation with the device.
        seconds: duration of the measurement.
        least: smallest number of rounds.

    Returns:
        Seconds of every round, by name.
    """

    def timed(function: Callable[[], object]) -> float:
        start = time.perf_counter()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    for function in functions.values():
        timed(function)
    times: dict[str, list[float]] = {name: [] for name in functions}
    end = time.perf_counter() + seconds
    while len(next(iter(times.values()))) < least or time.perf_counter() < end:
        for name, function in functions.items():
            times[name].append(timed(function))
    return times


def quartiles(values: list[float]) -> tuple[float, float]:
    """Return the first and the third quartile."""
    low, _, high = statistics.quantiles(values, n=4)
    return low, high


def peak_extra_memory(
    build: Callable[[], Callable[[], object]],
    device: torch.device,
    warm_up: Callable[[], Callable[[], object]] | None = None,
) -> int:
    """Measure a function's peak memory in bytes, without its inputs and its result.

    On a CPU the function runs in a fresh process, and the kernel's high-water mark is read. Allocations outside
    PyTorch are therefore counted, and memory kept from earlier is not. `build` prepares the inputs in this process.
    `warm_up` builds the same at a tiny size; it runs first, so that libraries and compiled code are not counted.

    Raises:
        RuntimeError: the platform does not report peak memory.
    """
    if device.type == "cuda":
        function = build()
        function()  # compile kernels and fill caches
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        kept = function()
        peak = torch.cuda.max_memory_allocated() - before
        return max(0, peak - _bytes_of(kept))
    if not Path("/proc/self/clear_refs").exists():
        raise RuntimeError("peak memory is read from /proc, and this platform has no /proc; use Linux")
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_peak_of, (build, warm_up, torch.get_num_threads()))


def available_memory(device: torch.device) -> int | None:
    """Return the free memory of the device in bytes, or None where the platform does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    table = Path("/proc/meminfo")
    if not table.exists():
        return None
    (line,) = (line for line in table.read_text().splitlines() if line.startswith("MemAvailable"))
    return int(line.split()[1]) * 1024


def _peak_of(
    build: Callable[[], Callable[[], object]],
    warm_up: Callable[[], Callable[[], object]] | None,
    threads: int,
) -> int:
    torch.set_num_threads(threads)
    if warm_up is not None:
        warm_up()()
    function = build()
    Path("/proc/self/clear_refs").write_text("5")  # reset the high-water mark
    before = _status("VmRSS")
    kept = function()
    return max(0, _status("VmHWM") - before - _bytes_of(kept))


def _bytes_of(kept: object) -> int:
    tensors = [kept] if isinstance(kept, torch.Tensor) else kept
    if not isinstance(tensors, list | tuple):
        return 0
    return sum(
        tensor.numel() * tensor.element_size() for tensor in tensors if isinstance(tensor, torch.Tensor)
    )


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")
