"""Take the results of a run of the kit into results/ and benchmarks/results/.

    python -m benchmarks.gpu.take DIR

Every record is checked. A record that is there already stays.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from capsnet.experiments.record import Record, record_path

ROOT = Path(__file__).parents[2]


def take(folder: Path, root: Path) -> list[Path]:
    """Write records and tables; return the new files.

    Raises:
        CapsnetError: a record is damaged.
        ValueError: the results are of a dry run.
    """
    report = json.loads((folder / "report.json").read_text())
    if report["about"]["toy"]:
        raise ValueError(f"{folder} has the results of a dry run, which mean nothing")
    new = _records(folder / "records.zip", report["about"]["commit"], root)
    jobs = {name: job["result"] for name, job in report["jobs"].items() if job["state"] == "done"}
    machine = jobs["smoke"]["environment"]
    about = {
        "device": machine["gpu"],
        "commit": report["about"]["commit"],
        "python": machine["python"],
        **{name: machine["versions"].get(name) for name in ("torch", "triton")},
    }
    card = machine["gpu"].removeprefix("NVIDIA ").split()[0].lower()
    for name, rows in tables(jobs).items():
        if rows:
            new.append(root / "benchmarks" / "results" / f"gpu-{name}-{card}.csv")
            _write(new[-1], [row | about for row in rows])
    return new


def tables(jobs: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of each CSV file."""
    steps = {name.partition(":")[2]: found for name, found in jobs.items() if name.startswith("step:")}
    return {
        "routing": jobs.get("routing", {}).get("times", []),
        "agree": jobs.get("agree", {}).get("times", []),
        "profile": [
            {"batch": batch, "kernel": kernel, "us": us}
            for batch, found in jobs.get("profile", {}).items()
            for kernel, us in [("(wall)", found["wall_us"]), ("(all)", found["busy_us"])]
            + [(f"({kind})", us) for kind, us in found["kinds_us"].items()]
            + found["kernels_us"]
        ],
        "step": [
            {"variant": name, "step": (at + 1) * found["steps_per_loss"], "loss": loss}
            | {key: found[key] for key in ("images_per_second", "slowest", "fastest", "peak_MiB")}
            for name, found in steps.items()
            for at, loss in enumerate(found["losses"])
        ],
    }


def _records(archive: Path, commit: str | None, root: Path) -> list[Path]:
    """Check and write the records; those of other lengths than the experiments' go beside the tables."""
    new = []
    with TemporaryDirectory() as scratch, zipfile.ZipFile(archive) as packed:
        packed.extractall(scratch)
        for file in sorted(Path(scratch).rglob("*.json")):
            record = Record.read(file)
            if record.environment.get("commit") is None:  # a packed copy has no repository
                record = replace(record, environment={**record.environment, "commit": commit})
            kind = file.relative_to(scratch).parts[0]
            home = root / "results" if kind in ("short", "quick") else root / "benchmarks" / "results" / kind
            path = record_path(home, record.experiment, record.variant, record.scale, record.seed)
            if path.exists():
                print(f"{path}: kept, there is one", file=sys.stderr)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            record.write(path)
            new.append(path)
    return new


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu.take",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="what the kit wrote")
    parser.add_argument("--root", type=Path, default=ROOT, help="the checkout; default: this one")
    options = parser.parse_args()
    for path in take(options.folder, options.root):
        print(path)


if __name__ == "__main__":
    main()
