"""Every fast path against the plain PyTorch reference: in one run, interleaved, parity first."""

from capsnet.benchmark.cases import CASES, Case, NoParity, describe, measure, sweep
from capsnet.benchmark.measure import Result

__all__ = ["CASES", "Case", "NoParity", "Result", "describe", "measure", "sweep"]
