"""Print the results of a benchmark, or write them to a file."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from capsnet._support.files import write_text
from capsnet.benchmark.measure import Result
from capsnet.cli.console import out


def print_table(results: list[Result], about: dict[str, Any]) -> None:
    """Print one row per result, and the machine."""
    from rich.table import Table

    table = Table("", "plain PyTorch", "fast", "speed-up", "rounds", "difference", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for result in results:
        table.add_row(
            result.case,
            _quantity(result.reference, result.reference_spread, result.quantity),
            _quantity(result.fast, result.fast_spread, result.quantity),
            "" if result.ratio is None else f"{result.ratio:.1f}×",
            str(result.repeats),
            "" if result.parity is None else f"{result.parity:.0e}",
        )
    out.print(table)
    where = about["gpu"] or f"{about['processor']}, {about['threads']} threads"
    out.print(
        f"medians (quartiles); {where}; torch {about['torch']}; capsnet {about['commit'] or about['capsnet']}"
    )


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows to a CSV file, atomically."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(dict.fromkeys(key for row in rows for key in row)))
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def _quantity(value: float | None, spread: tuple[float, float] | None, quantity: str) -> str:
    if value is None:
        return "not run: too large"  # see `benchmark.cases.MOST_VOTES`
    if quantity == "bytes":
        return f"{value / 2**20:,.1f} MiB"
    middle = f"{value * 1e3:,.2f} ms"
    return middle if spread is None else f"{middle} ({spread[0] * 1e3:,.1f} to {spread[1] * 1e3:,.1f})"
