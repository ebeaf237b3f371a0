"""Pack what a bare machine with a GPU needs: code, MNIST, the kernels of another commit, wheels.

    python -m benchmarks.gpu.pack FOLDER --data DATA --wheels mlxtend pooch pydantic pydantic-core

FOLDER/run starts the kit there. DATA is $CAPSNET_DATA; without --data the jobs that need MNIST fail. Wheels are those
that the machine lacks, in the versions of constraints.txt.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from capsnet._support.environment import commit

ROOT = Path(__file__).parents[2]
#: Triton kernels that were never timed against those on main.
OTHER = "8539ffb0575f3b7ec60ab48170825a9a379b68d8"
FILES = {"triton": "backend", "triton_kernels": "kernels", "triton_tiles": "tiles"}
MOVED = {
    "capsnet.routing.autograd": "capsnet.routing.backends",
    "capsnet.routing import triton_kernels": "benchmarks.gpu.other import kernels",
    "capsnet.routing.triton_tiles": "benchmarks.gpu.other.tiles",
}
LIMIT = 64 * 2**20

RUN = """#!/bin/sh
# Run the kit; its arguments are those of python -m benchmarks.gpu.
cd "$(dirname "$0")" || exit
[ ! -d wheels ] || [ -d site ] || python3 -m pip install -q --no-index --no-deps --target site wheels/*.whl || exit
export PYTHONPATH="$PWD:$PWD/src:$PWD/site" CAPSNET_DATA="$PWD/data" PYTHONUNBUFFERED=1
exec "${PYTHON:-python3}" -m benchmarks.gpu "$@"
"""


def git(*arguments: str) -> bytes:
    return subprocess.run(["git", "-C", str(ROOT), *arguments], check=True, capture_output=True).stdout


def export_kernels(folder: Path) -> bool:
    """Write the kernels of OTHER as a package of their own; False where this clone lacks that commit."""
    try:
        texts = {name: git("show", f"{OTHER}:src/capsnet/routing/{name}.py").decode() for name in FILES}
    except subprocess.CalledProcessError:
        return False
    folder.mkdir()
    (folder / "__init__.py").touch()
    for name, text in texts.items():
        for old, new in MOVED.items():
            text = text.replace(old, new)  # noqa: PLW2901
        (folder / f"{FILES[name]}.py").write_text(text)
    return True


def pack(folder: Path, data: Path | None, wheels: list[str], python: str, platforms: list[str]) -> int:
    """Fill a new folder; return its size in bytes."""
    folder.mkdir(parents=True)
    for part in ("src", "benchmarks"):
        shutil.copytree(
            ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__", "other", "results")
        )
    kit = folder / "benchmarks" / "gpu"
    (kit / "commit.txt").write_text(commit() or "unknown")
    if not export_kernels(kit / "other"):
        print(f"this clone lacks commit {OTHER[:7]}: its kernels will not be compared", file=sys.stderr)
    if data is not None:
        for file in sorted((data / "mnist").glob("*.gz")):
            (folder / "data" / "mnist").mkdir(parents=True, exist_ok=True)
            shutil.copy(file, folder / "data" / "mnist")
    if wheels:
        target = [f"--platform={name}" for name in platforms]
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:"]
        command += ["--python-version", python, *target, "-d", str(folder / "wheels")]
        subprocess.run([*command, "-c", str(ROOT / "constraints.txt"), *wheels], check=True)
    (folder / "run").write_text(RUN)
    (folder / "run").chmod(0o755)
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu.pack",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="a new folder")
    parser.add_argument("--data", type=Path, help="a folder with mnist/ in it")
    parser.add_argument("--wheels", nargs="*", default=[], help="packages that the machine lacks")
    parser.add_argument("--python", default="3.12", help="the machine's Python")
    default = [f"manylinux_2_{n}_x86_64" for n in (28, 27, 17)] + ["manylinux2014_x86_64"]
    parser.add_argument("--platforms", nargs="*", default=default, help="the machine's, as pip names them")
    options = parser.parse_args()
    size = pack(options.folder, options.data, options.wheels, options.python, options.platforms)
    print(f"{options.folder}: {size / 2**20:.1f} MiB; there: {options.folder.name}/run --out DIR")
    if size > LIMIT:
        sys.exit(f"more than {LIMIT >> 20} MiB")


if __name__ == "__main__":
    main()
