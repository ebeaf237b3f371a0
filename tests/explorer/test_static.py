"""The page's files: types that are the server's, and no address of another machine."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from capsnet.explorer.typescript import TARGET, declarations


def test_the_page_s_types_are_the_server_s() -> None:
    assert TARGET.read_text(encoding="utf-8") == declarations(), "run: python -m capsnet.explorer.typescript"


def test_the_page_type_checks() -> None:
    here = Path(__file__).parents[2]
    local = here / "node_modules" / ".bin" / "tsc"
    tsc = str(local) if local.exists() else shutil.which("tsc")
    if tsc is None:
        pytest.skip("no TypeScript here: npm install typescript")
    done = subprocess.run(
        [tsc, "-p", str(here / "src/capsnet/explorer/tsconfig.json")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_the_page_asks_nothing_of_other_machines() -> None:
    """Also in what no test opens: no address of another machine in any of the page's files."""
    for file in (Path(__file__).parents[2] / "src/capsnet/explorer/static").rglob("*"):
        if file.suffix in {".js", ".css", ".html", ".svg"}:
            addresses = re.findall(
                r"(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}[^\s\"')]*", file.read_text(encoding="utf-8")
            )
            assert {a for a in addresses if not a.startswith("http://www.w3.org/")} == set(), file
