"""Run parts of the torture run (default: all), then write docs/reliability.md.

Usage: `python -m torture [PART …] [--short]`.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from capsnet._support.files import write_text
from torture.part import Trial, run
from torture.parts import PARTS
from torture.report import page

REPORT = Path(__file__).parents[1] / "docs" / "reliability.md"


def main() -> int:
    """Run the requested parts; return 1 if a trial was lost or could not be tried."""
    parser = argparse.ArgumentParser(prog="python -m torture", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument(
        "--short", action="store_true", help="run for seconds instead of hours, without writing the report"
    )
    parser.add_argument(
        "--offline",
        action="store_true",
        help="do not fail if the advisory service cannot be reached; the report says so",
    )
    asked = parser.parse_args()
    if unknown := [name for name in asked.parts if name not in PARTS]:
        parser.error(f"unknown part {unknown[0]!r}; choose from: {', '.join(PARTS)}")
    trials: list[Trial] = []
    with tempfile.TemporaryDirectory(prefix="capsnet-torture-") as folder:
        for name in asked.parts or PARTS:
            print(f"== {PARTS[name].title}", flush=True)
            trials += run(PARTS[name], Path(folder) / name, asked.short, lambda line: print(line, flush=True))
    if not asked.short:
        write_text(REPORT, page(list(PARTS.values())))
    failures = ["LOST"] if asked.offline else ["LOST", "UNTRIED"]
    bad = [trial for trial in trials if trial.verdict in failures]
    for trial in bad:
        print(f"{trial.verdict}: {trial.what}")
    return bool(bad)


if __name__ == "__main__":
    raise SystemExit(main())
