"""How functions are compiled for this CPU, by Numba."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit

#: "contract" lets a·b + c be rounded once. Nothing here lets the compiler ignore NaN or reorder sums.
OPTIONS = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}


def compiled(*signature: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile for a signature, or at the first call, and keep the result on disk where Numba finds a folder for it."""

    def compile_(function: Callable[..., Any]) -> Any:
        try:
            return njit(*signature, cache=True, **OPTIONS)(function)
        except RuntimeError:  # "cannot cache function: no locator available": in every process then
            return njit(*signature, **OPTIONS)(function)

    return compile_
