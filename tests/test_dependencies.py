"""What capsnet imports is what it says it needs, and the lower bounds are those that are tested."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
#: Import name → distribution, where the two differ.
DISTRIBUTIONS = {"PIL": "pillow", "sklearn": "scikit-learn"}
#: Comes with PyTorch where PyTorch has a GPU to use; imported only there.
OPTIONAL = {"triton"}

RUNTIME = [Requirement(text) for text in (*PROJECT["dependencies"], *EXTRAS["explorer"], *EXTRAS["export"])]


def pins(name: str) -> dict[str, str]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    found = [re.fullmatch(r"(\S+)==(\S+)", line) for line in lines if line and not line.startswith("#")]
    assert all(found)
    return {canonicalize_name(match[1]): match[2] for match in found if match}


@pytest.mark.skipif(not (ROOT / "src").is_dir(), reason="reads the source")
def test_what_is_imported_is_declared() -> None:
    imported = set()
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                imported.add(node.module.partition(".")[0])
    foreign = imported - set(sys.stdlib_module_names) - {"capsnet"} - OPTIONAL
    declared = {canonicalize_name(requirement.name) for requirement in RUNTIME}
    assert {canonicalize_name(DISTRIBUTIONS.get(name, name)) for name in foreign} <= declared


def test_the_oldest_versions_tested_are_the_lower_bounds() -> None:
    oldest = pins("constraints-oldest.txt")
    claimed = {canonicalize_name(r.name): Version(next(iter(r.specifier)).version) for r in RUNTIME}
    assert oldest.pop("torch") == pins("constraints.txt")["torch"]  # why: in the file
    del claimed["torch"]
    assert {name: Version(version) for name, version in oldest.items()} == claimed


def test_what_is_declared_is_pinned_to_a_version_that_is_allowed() -> None:
    pinned = pins("constraints.txt")
    for requirement in RUNTIME:
        assert pinned[canonicalize_name(requirement.name)] in requirement.specifier
