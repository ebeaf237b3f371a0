"""Builds the wheel, installs it into a clean environment, and runs the quick tests on what was installed.

Only `python3` is needed, and a package index. `make test-wheel`, `test-oldest`, `test-newest` and `test-pythons` are
calls of this. The tests run from a copy that has no `src/`: what they import is the installed package, and
tests/project/test_package.py fails if it is not.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: What the tests read beside the package itself.
NEEDED = (
    "tests",
    "torture",
    "docs",
    "pyproject.toml",
    "README.md",
    "constraints.txt",
    "constraints-oldest.txt",
)
#: Variables that would let the checkout, or another environment, in.
STRANGE = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")


def main() -> int:
    """Do all of it; the exit code of the tests."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", default=sys.executable, help="the interpreter of the new environment")
    parser.add_argument("--constraint", action="append", default=[], metavar="FILE|REQUIREMENT")
    parser.add_argument(
        "--old", action="store_true", help="old libraries may say what is deprecated in new ones"
    )
    parser.add_argument(
        "--offline", action="store_true", help="run the tests without a network (Linux, as root)"
    )
    asked = parser.parse_args()
    environment = {name: value for name, value in os.environ.items() if name not in STRANGE}
    environment["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"

    with tempfile.TemporaryDirectory(prefix="capsnet-quick-") as folder:
        work = Path(folder)

        def call(*command: str | Path, cwd: Path = work) -> None:
            subprocess.run(command, cwd=cwd, env=environment, check=True)

        began = time.monotonic()
        call(asked.python, "-m", "venv", work / "env")
        python = work / "env" / "bin" / "python"
        call(python, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", work, ROOT)
        (wheel,) = work.glob("capsnet-*.whl")
        given = [work / "given.txt"]
        given[0].write_text("\n".join(text for text in asked.constraint if "==" in text), encoding="utf-8")
        given += [ROOT / text for text in asked.constraint if "==" not in text]
        limits = [part for file in given for part in ("--constraint", str(file))]
        call(python, "-m", "pip", "install", "--quiet", *limits, f"{wheel}[quick]")
        call(python, "-m", "pip", "check")
        installed = time.monotonic()

        copy = work / "copy"
        copy.mkdir()
        for name in NEEDED:
            place = ROOT / name
            if place.is_dir():
                shutil.copytree(place, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(place, copy / name)
        files = [
            f
            for f in sorted((copy / "tests").rglob("test_*.py"))
            if "pytest.mark.quick" in f.read_text("utf-8")
        ]
        quiet = ["DeprecationWarning", "PendingDeprecationWarning", "FutureWarning"] if asked.old else []
        warnings = [part for kind in quiet for part in ("-W", f"default::{kind}")]
        environment["CAPSNET_TESTS_INSTALLED"] = "1"
        command = [
            python,
            "-m",
            "pytest",
            "-q",
            "-m",
            "quick and not gpu",
            "--durations=5",
            *warnings,
            *files,
        ]
        if asked.offline:
            # A network namespace of their own, with nothing in it but loopback, for the subprocesses as well.
            command = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *command]
        code = subprocess.run(command, cwd=copy, env=environment, check=False).returncode
        ended = time.monotonic()
        print(f"installed in {installed - began:.0f} s, tested in {ended - installed:.0f} s", flush=True)
        return code


if __name__ == "__main__":
    raise SystemExit(main())
