"""Write docs/reliability.md from the records in torture/results/."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torture.part import Part, recorded

HEAD = """# Reliability

This page lists the failures that were tried, how often, and how many attempts were lost. `make torture` repeats all of
them and writes this page again. Nothing is typed by hand. The small version of each part runs in `make test-all`.
"""


def page(parts: Sequence[Part]) -> str:
    """Return the page. Parts without a full run are marked as not run."""
    sections = [HEAD]
    for part in parts:
        record = recorded(part)
        body = "Not run yet." if record is None else _table(record)
        sections.append(f"## {part.title}\n\n{part.about}\n\n{body}\n")
    return "\n".join(sections)


def _table(record: dict[str, Any]) -> str:
    lines = ["| what was tried | times | lost | |", "|---|---|---|---|"]
    for trial in record["trials"]:
        lost = f"{trial['lost']:,}" if trial["tried"] else "not tried"
        cells = (trial["what"], f"{trial['tried']:,}", lost, trial["note"])
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    where = record["environment"]
    lines += [
        "",
        f"{record['date']}, commit {where['commit']}, {where['cores']} cores of {where['processor']}, "
        f"Python {where['python']}, PyTorch {where['versions']['torch']}; {record['seconds'] / 60:.0f} minutes.",
    ]
    return "\n".join(lines)
