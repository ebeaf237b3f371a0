"""Time every fast path against plain PyTorch, after a parity check."""

from capsnet.benchmark.cases import CASES, Case, NoParity, describe, measure, sweep
from capsnet.benchmark.measure import Result

__all__ = ["CASES", "Case", "NoParity", "Result", "describe", "measure", "sweep"]
