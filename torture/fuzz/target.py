"""Define a fuzz target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

Check = Callable[[bytes], None]


@dataclass(frozen=True)
class Target:
    """Describe one reader to fuzz."""

    name: str
    what: str
    """Its name in the report."""
    seeds: Callable[[], Sequence[bytes]]
    prepare: Callable[[Path], Check]
    """Takes an empty folder, imports the reader and returns the function that checks each input."""
    words: Callable[[], tuple[str, ...]] = tuple
    """Words that libFuzzer inserts into inputs."""
    longest: int = 512
