"""One switch between the fast paths and the plain ones they are compared with."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

_disabled_depth = 0


def enabled() -> bool:
    """Whether fast paths may be picked: `CAPSNET_FAST` is not 0, and no `disabled()` block is open."""
    return _disabled_depth == 0 and os.environ.get("CAPSNET_FAST", "1") != "0"


@contextmanager
def disabled() -> Iterator[None]:
    """Use the plain paths only, in the whole process, for as long as the block is open."""
    global _disabled_depth  # noqa: PLW0603  torch.compile guards on a module's integer, not on a ContextVar
    _disabled_depth += 1
    try:
        yield
    finally:
        _disabled_depth -= 1
