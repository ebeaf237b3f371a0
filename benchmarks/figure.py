"""Draw the figure of docs/speed.md from a sweep.

Usage: `python benchmarks/figure.py benchmarks/results/cpu.csv FIGURE.png`.

The sweep is `capsnet bench --sweep --csv FILE`: routing forward and backward at batch 32, one size varied at a time.
"""

from __future__ import annotations

import csv
import re
import sys
from pathlib import Path

from matplotlib.figure import Figure

SIZES = re.compile(r"routing (\d+)×8 → (\d+)×16, r=(\d+), batch 32")
QUANTITIES = (("seconds", "ms", 1e3), ("bytes", "MiB beyond results", 2**-20))
#: The system counts memory in pages, so smaller values are not measurable.
PAGE = 4096.0
USUAL = {"children": 1152, "parents": 10, "iterations": 3}


def main() -> None:
    source, target = map(Path, sys.argv[1:3])
    with source.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    figure = Figure(figsize=(10, 5.6), layout="constrained")
    panels = figure.subplots(2, 3, sharey="row")
    for column, axis in enumerate(USUAL):
        for line, (quantity, unit, scale) in enumerate(QUANTITIES):
            axes = panels[line, column]
            points = sorted(
                sizes_of(row)[axis] + values(row, scale) for row in rows if varies(row, axis, quantity)
            )
            places, plain, fast = zip(*points, strict=True)
            axes.plot(places, plain, "o-", color="#b3540a", label="plain PyTorch")
            axes.plot(places, fast, "o-", color="#1f5fa8", label="never stores the votes")
            axes.set(xscale="log", yscale="log", xlabel=axis)
            axes.grid(alpha=0.3)
            if column == 0:
                axes.set_ylabel(
                    f"forward + backward, {unit}" if quantity == "seconds" else f"peak memory, {unit}"
                )
    panels[0, 0].legend(frameon=False)
    figure.savefig(target, dpi=110)


def sizes_of(row: dict[str, str]) -> dict[str, tuple[int]]:
    found = SIZES.fullmatch(row["case"])
    return (
        {}
        if found is None
        else {name: (int(size),) for name, size in zip(USUAL, found.groups(), strict=True)}
    )


def varies(row: dict[str, str], axis: str, quantity: str) -> bool:
    """Return whether a row differs from the paper's sizes only in `axis`."""
    sizes = sizes_of(row)
    others = (name for name in USUAL if name != axis)
    both = bool(row["reference"])
    return (
        bool(sizes) and both and row["quantity"] == quantity and all(sizes[n] == (USUAL[n],) for n in others)
    )


def values(row: dict[str, str], scale: float) -> tuple[float, float]:
    resolved = PAGE if row["quantity"] == "bytes" else 0.0
    return float(row["reference"]) * scale, max(float(row["fast"]), resolved) * scale


if __name__ == "__main__":
    main()
