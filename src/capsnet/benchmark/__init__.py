"""Time every fast path against plain PyTorch, after a parity check."""

from capsnet.benchmark.cases import CASES, Case, NoParity, describe, measure, sweep
from capsnet.benchmark.measure import Result, available_memory

__all__ = ["CASES", "Case", "NoParity", "Result", "available_memory", "describe", "measure", "sweep"]
