"""Print the table of docs/speed.md: `python benchmarks/speed_table.py CSV`.

CSV is a file written by `capsnet bench --csv`.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROWS = {
    ("routing forward", "seconds"): "routing 1152×8 → 10×16, r = 3, batch 128, forward",
    ("routing forward + backward", "seconds"): "the same, forward + backward",
    ("routing memory, forward + backward", "bytes"): "its peak memory beyond inputs, gradients and outputs",
    ("training step, batch 128", "seconds"): "whole training step, batch 128",
    ("inference, batch 128", "seconds"): "inference, batch 128",
    ("inference, batch 1", "seconds"): "inference, batch 1",
}
LARGE = "routing 32768×8 → 100×16, r=3, batch 32"


def table(rows: Sequence[Mapping[str, str]]) -> str:
    """Return a Markdown table: medians of both paths, and the speed-up."""
    found = {(row["case"], row["quantity"]): row for row in rows}
    lines = ["| | plain | fast | speed-up |", "|---|---|---|---|"]
    for key, title in ROWS.items():
        row = found[key]
        plain, fast = (quantity(float(row[path]), row["quantity"]) for path in ("reference", "fast"))
        lines.append(f"| {title} | {plain} | {fast} | {digits(float(row['ratio']))} |")
    if (LARGE, "seconds") in found:  # of a run with --sweep
        seconds, memory = (quantity(float(found[LARGE, unit]["fast"]), unit) for unit in ("seconds", "bytes"))
        title = "32,768×8 → 100×16, batch 32, forward + backward"
        lines.append(f"| {title} | its votes alone are 6.7 GB | {seconds}, {memory} | |")
    return "\n".join(lines)


def quantity(value: float, unit: str) -> str:
    """Format a quantity with three digits and a unit."""
    if unit == "bytes":
        return f"{digits(value / 2**20)} MiB"
    return f"{digits(value)} s" if value >= 2 else f"{digits(1e3 * value)} ms"


def digits(value: float) -> str:
    """Format a ratio with one decimal below 100 and none above."""
    return f"{value:,.0f}" if value >= 99.95 else f"{value:.1f}"


def read(path: Path) -> list[dict[str, str]]:
    """Read the rows of a CSV file from `capsnet bench --csv`."""
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


if __name__ == "__main__":
    print(table(read(Path(sys.argv[1]))))
