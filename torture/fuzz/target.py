"""What a fuzz target is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

Check = Callable[[bytes], None]


@dataclass(frozen=True)
class Target:
    """One reader."""

    name: str
    what: str
    """As the report says it."""
    seeds: Callable[[], Sequence[bytes]]
    prepare: Callable[[Path], Check]
    """Given an empty folder, imports what is fuzzed and makes what it needs; returns what meets each input."""
    words: Callable[[], tuple[str, ...]] = tuple
    """libFuzzer puts them into inputs."""
    longest: int = 512
