"""What is installed: known vulnerabilities, requirements that are not met, licences."""

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
    """`pip check`."""
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
    """docs/licences.md, counted."""
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
    """`pip-audit`. A service that cannot be asked is no audit: nothing was tried."""
    what = "an installed package: no vulnerability of its version is known to PyPI's advisory service"
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    try:
        packages: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError):
        said = done.stderr.strip().splitlines() or ["nothing"]
        return Trial(what, 0, 0, f"NOT AUDITED: pip-audit ended with {done.returncode}: {said[-1][:160]}")
    asked = [one for one in packages if "skip_reason" not in one]
    skipped = [str(one["name"]) for one in packages if "skip_reason" in one]
    if not asked:  # pip-audit itself says "No known vulnerabilities found" then, and ends with 0
        return Trial(what, 0, 0, f"NOT AUDITED: the service knows none of {len(packages)} packages")
    hit = [f"{one['name']} {one['version']}: {flaw['id']}" for one in asked for flaw in one["vulns"]]
    notes = [*hit, *([f"unknown to the service: {', '.join(skipped)}"] if skipped else [])]
    return Trial(what, len(asked), len({line.partition(":")[0] for line in hit}), "; ".join(notes))


def make(work: Path, short: bool) -> Sequence[Trial]:
    """All three; the short version leaves out the one that needs the network."""
    del work  # nothing is written
    trials = [requirements(), licensed()]
    return trials if short else [*trials, audit()]


PART = Part(
    "dependencies",
    "Dependencies",
    "The environment that `make torture` runs in: `pip check`, the licences that the packages state "
    "([list](licences.md)), and `pip-audit`, which asks an advisory service. If that does not answer, nothing was "
    "audited, and the run fails unless it is told that it is `--offline`.",
    make,
)
