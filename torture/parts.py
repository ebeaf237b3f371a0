"""List the parts of the torture run, in the order of the report."""

from __future__ import annotations

from torture import crash, dependencies, explorer_load, numbers, processes, streaming
from torture.fuzz.campaign import PART as FUZZ
from torture.part import Part

_ALL: tuple[Part, ...] = (
    crash.PART,
    numbers.PART,
    FUZZ,
    processes.PART,
    streaming.PART,
    explorer_load.PART,
    dependencies.PART,
)

PARTS = {part.name: part for part in _ALL}
