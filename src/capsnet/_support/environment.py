"""The environment of a measurement: machine, versions, commit."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from capsnet._support.version import __version__


def environment() -> dict[str, Any]:
    """Return versions and machine, to explain why results differ."""
    packages = ("torch", "numpy", "numba", "triton", "accelerate", "safetensors")
    return {
        "capsnet": __version__,
        "commit": commit(),
        "python": platform.python_version(),
        "versions": {name: version for name in packages if (version := _version(name))},
        "platform": platform.platform(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def processor() -> str:
    """Return the name of the processor."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def commit() -> str | None:
    """Return the commit of the checkout that this package runs from.

    A "+" marks uncommitted changes. None if the package does not run from a checkout.
    """
    package = Path(__file__).parents[1]
    if not (package.parents[1] / ".git").exists():
        return None
    try:
        found = _git("rev-parse", "--short=12", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", str(package))
    except (OSError, subprocess.SubprocessError):
        return None
    return found + "+" * bool(changed)


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
