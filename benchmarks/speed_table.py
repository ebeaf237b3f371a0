"""Write the tables of docs/speed.md that come from a CSV file: `python benchmarks/speed_table.py CSV`.

CSV is a file written by `capsnet bench --csv`. A table stands below a line such as `<!-- routings of cpu.csv -->`.
"""

from __future__ import annotations

import csv
import re
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
ROUTINGS = {
    "agree": "`agree`, 1152×8 → 10×16, batch 128",
    "self-attention": "self-attention, the same sizes",
    "em": "EM, 3 iterations",
    "inverted-attention": "inverted attention, 2 iterations",
    "variational-bayes": "variational Bayes, 3 iterations",
    "em, convolutional": "EM, 32 → 32 types, 3×3, 14×14 → 6×6, batch 32",
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


def routings(rows: Sequence[Mapping[str, str]]) -> str:
    """Return a Markdown table of the routings that are made from `agree`: time and extra memory of both paths."""
    found = {(row["case"], row["quantity"]): row for row in rows}
    lines = [
        "| forward + backward | plain | fast | speed-up | memory, plain | memory, fast |",
        "|---|---|---|---|---|---|",
    ]
    for name, title in ROUTINGS.items():
        time = found.get((f"{name} forward + backward", "seconds"))
        memory = found.get((f"{name} memory, forward + backward", "bytes"))
        if time is None or memory is None:  # left out where memory was short
            continue
        cells = [
            *(quantity(float(time[path]), "seconds") for path in ("reference", "fast")),
            digits(float(time["ratio"])),
            *(quantity(float(memory[path]), "bytes") for path in ("reference", "fast")),
        ]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines) if len(lines) > 2 else ""


TABLES = {"table": table, "routings": routings}


def write(page: str, name: str, rows: Sequence[Mapping[str, str]]) -> str:
    """Return the page with the tables below its marks `<!-- table of NAME -->` and `<!-- routings of NAME -->`."""
    for kind, make in TABLES.items():
        mark = f"<!-- {kind} of {name} -->\n\n"
        before, found, after = page.partition(mark)
        if found:
            old = re.match(r"(?:\|.*\n)*", after)
            made = make(rows)
            page = before + mark + (made and made + "\n") + after[old.end() if old else 0 :]
    return page


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
    source = Path(sys.argv[1])
    target = Path(__file__).parents[1] / "docs/speed.md"
    target.write_text(write(target.read_text(encoding="utf-8"), source.name, read(source)), encoding="utf-8")
