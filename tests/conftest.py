"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

if os.environ.get("CAPSNET_CHECK_ANNOTATIONS") == "1":  # before anything of capsnet is imported
    from annotations_checked import install

    install()

    def pytest_configure(config: pytest.Config) -> None:
        """Beartype looks at items of containers by chance, also while Hypothesis builds examples."""
        config.addinivalue_line("filterwarnings", "ignore:Do not use the .random. module inside strategies")


SHARED = Path(__file__).parents[2] / "shared" / "data"
#: Directory of the unpacked files → what the unpacking script beside the packed ones calls the set.
PACKED = {"mnist": "mnist", "smallnorb48": "smallnorb", "cifar-10-batches-bin": "cifar10"}


@pytest.fixture(scope="session")
def real_data(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`real_data("mnist")`: a DIR whose DIR/mnist holds the published files; skips where there is none."""
    unpacked: list[Path] = []

    def find(name: str) -> Path:
        local = os.environ.get("CAPSNET_DATA")
        if local and (Path(local) / name).is_dir():
            return Path(local)
        if not (SHARED / "unpack").is_file():
            pytest.skip(f"no {name}: CAPSNET_DATA does not hold it and there is no {SHARED}")
        if not unpacked:
            unpacked.append(tmp_path_factory.mktemp("real"))
        if not (unpacked[0] / name).is_dir():
            subprocess.run([sys.executable, SHARED / "unpack", unpacked[0], PACKED[name]], check=True)
        return unpacked[0]

    return find
