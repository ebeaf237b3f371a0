"""`python -m torture [PART …] [--short]`: run the parts (all, if none is named), then write docs/reliability.md."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from capsnet.files import write_text
from torture.part import run
from torture.parts import PARTS
from torture.report import page

REPORT = Path(__file__).parents[1] / "docs" / "reliability.md"


def main() -> int:
    """Run what is asked for; 1 if anything was lost."""
    parser = argparse.ArgumentParser(prog="python -m torture", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument(
        "--short", action="store_true", help="seconds instead of hours; the report is left alone"
    )
    asked = parser.parse_args()
    if unknown := [name for name in asked.parts if name not in PARTS]:
        parser.error(f"no part named {unknown[0]!r}; there are: {', '.join(PARTS)}")
    lost = []
    with tempfile.TemporaryDirectory(prefix="capsnet-torture-") as folder:
        for name in asked.parts or PARTS:
            print(f"== {PARTS[name].title}", flush=True)
            if not run(PARTS[name], Path(folder) / name, asked.short, lambda line: print(line, flush=True)):
                lost.append(name)
    if not asked.short:
        write_text(REPORT, page(list(PARTS.values())))
    if lost:
        print(f"something was lost in: {', '.join(lost)}")
    return bool(lost)


if __name__ == "__main__":
    raise SystemExit(main())
