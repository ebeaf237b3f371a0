"""Compile functions for this CPU with Numba."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit

#: "contract" rounds a·b + c once. No option lets the compiler ignore NaN or reorder sums.
OPTIONS = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}


def compiled(*signature: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function, and cache the result on disk where Numba finds a folder.

    Args:
        signature: compile at once for this signature. Without one, compile at the first call.
    """

    def compile_(function: Callable[..., Any]) -> Any:
        try:
            return njit(*signature, cache=True, **OPTIONS)(function)
        except RuntimeError:  # "cannot cache function: no locator available": every process compiles anew
            return njit(*signature, **OPTIONS)(function)

    return compile_
