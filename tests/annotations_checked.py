"""Checks the annotations of shapes and types at run time: `make test-annotations`.

Not in every test: whoever is given what the annotations forbid has to refuse it in words of its own (those tests
are marked `misuse`), and routing.operators reads annotations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

MODULES = (
    "convolution.im2col", "convolution.winograd", "data", "explain", "functional", "inference.evaluation",
    "layers", "models",
    "routing.chunked", "routing.cpu.backend", "routing.cuda.backend", "routing.reference",
)  # fmt: skip
_check = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is a float, as type checkers have it


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """What jaxtyping puts around each function. `Self` means nothing to beartype outside a class."""
    returns = getattr(function, "__annotations__", {}).get("return", "")
    return function if "Self" in str(returns) else _check(function)


def install() -> None:
    """Check everything in `MODULES` that is imported from now on."""
    install_import_hook([f"capsnet.{name}" for name in MODULES], f"{__name__}.check")
