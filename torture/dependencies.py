"""Check the installed packages: requirements, licences and known vulnerabilities."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from torture.licences import licences
from torture.part import Part, Trial

AUDIT = (sys.executable, "-m", "pip_audit", "--local", "--skip-editable", "--format", "json")


def requirements() -> Trial:
    """Run `pip check`."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", "check"], capture_output=True, text=True, check=False, timeout=300
    )
    broken = done.stdout.splitlines() if done.returncode else []
    count = sum(1 for _ in distributions())
    return Trial(
        "an installed package: what it requires is there, in a version that it allows",
        count,
        max(len(broken), int(done.returncode != 0)),
        "; ".join(broken[:3]),
    )


def licensed() -> Trial:
    """Count the licences of docs/licences.md by kind."""
    found = licences()
    bad = [licence for licence in found if licence.kind in ("copyleft", "unknown")]
    weak = [licence.name for licence in found if licence.kind == "weak copyleft"]
    note = "; ".join(
        [*(f"{one.name}: {one.text} ({one.kind})" for one in bad), f"weak copyleft: {', '.join(weak)}"]
    )
    return Trial(
        "a package that capsnet needs: its licence is known and no strong copyleft",
        len(found),
        len(bad),
        note,
    )


def audit(command: Sequence[str] = AUDIT) -> Trial:
    """Run `pip-audit`; without an answer, the trial counts as not tried."""
    what = "an installed package: no vulnerability of its version is known to PyPI's advisory service"
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    try:
        packages: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError):
        said = done.stderr.strip().splitlines() or ["nothing"]
        return Trial(what, 0, 0, f"NOT AUDITED: pip-audit ended with {done.returncode}: {said[-1][:160]}")
    asked = [one for one in packages if "skip_reason" not in one]
    skipped = [str(one["name"]) for one in packages if "skip_reason" in one]
    if not asked:  # pip-audit would report "No known vulnerabilities found" and exit code 0
        return Trial(what, 0, 0, f"NOT AUDITED: the service knows none of {len(packages)} packages")
    hit = [f"{one['name']} {one['version']}: {flaw['id']}" for one in asked for flaw in one["vulns"]]
    notes = [*hit, *([f"unknown to the service: {', '.join(skipped)}"] if skipped else [])]
    return Trial(what, len(asked), len({line.partition(":")[0] for line in hit}), "; ".join(notes))


def make(work: Path, short: bool) -> Sequence[Trial]:
    """Run all three trials; the short version skips the one that needs the network."""
    del work  # nothing is written
    trials = [requirements(), licensed()]
    return trials if short else [*trials, audit()]


PART = Part(
    "dependencies",
    "Dependencies",
    "The environment of `make torture` is checked with `pip check`, with the licences that the packages state "
    "([list](licences.md)), and with `pip-audit`, which asks an advisory service. If the service does not answer, "
    "nothing is audited and the run fails, except with `--offline`.",
    make,
)
