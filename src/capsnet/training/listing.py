"""Runs in a folder, with their errors."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from capsnet._support.errors import CapsnetError, shown
from capsnet.training.run import Run


@dataclass(frozen=True)
class Listed:
    """What is known of a run without loading its model."""

    folder: str
    model: str | None = None
    data: str | None = None
    error: float | None = None
    interval_95: tuple[float, float] | None = None
    n: int | None = None
    steps: int = 0
    finished: bool = False
    problem: str | None = None
    """Why the run cannot be read."""

    def as_dict(self) -> dict[str, Any]:
        """Return the values for JSON output."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def list_runs(folder: Path) -> list[Listed]:
    """Return all runs below a folder, sorted by their paths. A run that cannot be read is listed with the problem.

    Raises:
        CapsnetError: the folder does not exist.
    """
    if not folder.is_dir():
        raise CapsnetError(f"{shown(folder)}: there is no such folder; start a run with: capsnet train")
    return [_listed(path.parent) for path in sorted(folder.rglob("config.json"))]


def _listed(folder: Path) -> Listed:
    name = shown(folder)
    run = Run(folder)
    try:
        saved, result = run.saved(), run.result()
        if result is not None:
            low, high = (float(bound) for bound in result.get("interval_95", (0.0, 1.0)))
            return Listed(
                name,
                shown(saved.architecture),
                None if saved.data is None else shown(saved.data),
                float(result["test_error"]),
                (low, high),
                int(result["n"]),
                int(result.get("steps", 0)),
                finished=True,
            )
        lines = run.metrics()
        steps = max((line["step"] for line in lines), default=0)
        tests = [line["test_error"] for line in lines if isinstance(line.get("test_error"), float)]
        return Listed(
            name,
            shown(saved.architecture),
            None if saved.data is None else shown(saved.data),
            tests[-1] if tests else None,
            steps=steps,
        )
    except (CapsnetError, LookupError, TypeError, ValueError) as error:
        return Listed(name, problem=shown(str(error).partition("\n")[0])[:200])
