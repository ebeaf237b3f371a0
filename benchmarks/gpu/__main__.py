"""Measure on a GPU what is worth most, until the time is over.

    python -m benchmarks.gpu --minutes 12 --out DIR

Writes DIR/report.json and DIR/records.zip. The same command goes on after an interruption. --dry-run runs every job at
toy size on the CPU, Triton's kernels in its interpreter.
"""

import argparse
import os
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=12.0, help="stop after this time")
    parser.add_argument("--out", type=Path, required=True, help="folder for the two files of results")
    parser.add_argument("--work", type=Path, default=Path("runs/gpu"), help="folder for trainings")
    parser.add_argument("--only", default="", help="only jobs whose name begins so")
    parser.add_argument("--list", action="store_true", help="list the jobs with their estimated seconds")
    parser.add_argument("--dry-run", action="store_true", help="toy sizes on the CPU")
    options = parser.parse_args()
    if options.dry_run:
        os.environ |= {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}  # before Triton is imported
    from benchmarks.gpu.jobs import JOBS
    from benchmarks.gpu.runner import Report, Setting, run

    jobs = [job for job in JOBS if job.name.startswith(options.only)]
    if options.list:
        for job in jobs:
            print(f"{job.seconds:5.0f} s  {job.name}")
        return
    work = options.work / ("toy" if options.dry_run else "full")
    work.mkdir(parents=True, exist_ok=True)
    commit = Path(__file__).with_name("commit.txt")
    about = {"toy": options.dry_run, "commit": commit.read_text().strip() if commit.exists() else None}
    run(jobs, Report(options.out, about), Setting(options.dry_run, work), 60 * options.minutes)


if __name__ == "__main__":
    main()
