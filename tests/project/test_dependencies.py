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
from torture import licences
from torture.dependencies import audit, make

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
#: Import name → distribution, where the two differ.
DISTRIBUTIONS = {"PIL": "pillow", "sklearn": "scikit-learn"}
#: Triton comes with PyTorch where PyTorch has a GPU to use. Trackers are installed by users who name them in --log.
#: Each is imported only there.
OPTIONAL = {"triton", "trackio"}

USED = ("explorer", "export", "datasets", "serve")
RUNTIME = [Requirement(text) for text in sum((EXTRAS[name] for name in USED), PROJECT["dependencies"])]
#: For users who have a cluster: imported where it is used, and not installed for the tests (Ray) or for them alone.
CLUSTER = [Requirement(text) for text in EXTRAS["cluster"]]


def pins(name: str) -> dict[str, str]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    found = [re.fullmatch(r"(\S+)==(\S+)", line) for line in lines if line and not line.startswith("#")]
    assert all(found)
    return {canonicalize_name(match[1]): match[2] for match in found if match}


@pytest.mark.skipif(not (ROOT / "src").is_dir(), reason="reads the source")
def test_imported_packages_are_declared() -> None:
    imported = set()
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                imported.add(node.module.partition(".")[0])
    foreign = imported - set(sys.stdlib_module_names) - {"capsnet"} - OPTIONAL
    declared = {canonicalize_name(requirement.name) for requirement in (*RUNTIME, *CLUSTER)}
    assert {canonicalize_name(DISTRIBUTIONS.get(name, name)) for name in foreign} <= declared


def test_the_oldest_versions_tested_are_the_lower_bounds() -> None:
    oldest = pins("constraints-oldest.txt")
    claimed = {
        canonicalize_name(r.name): Version(next(iter(r.specifier)).version) for r in (*RUNTIME, *CLUSTER)
    }
    assert oldest.pop("torch") == pins("constraints.txt")["torch"]  # why: in the file
    del claimed["torch"]
    assert {name: Version(version) for name, version in oldest.items()} == claimed


def test_pinned_versions_are_allowed_by_the_declared_ones() -> None:
    pinned = pins("constraints.txt")
    for requirement in (*RUNTIME, *CLUSTER):
        assert pinned[canonicalize_name(requirement.name)] in requirement.specifier


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("MIT", "permissive"),
        ("BSD-3-Clause AND 0BSD AND MIT AND Zlib AND CC0-1.0", "permissive"),
        ("Apache-2.0 OR BSD-2-Clause", "permissive"),
        ("Apache-2.0 WITH LLVM-exception", "permissive"),
        ("MPL-2.0 AND MIT", "weak copyleft"),
        ("MIT AND GPL-3.0-or-later", "copyleft"),
        ("GNU Lesser General Public License v3 (LGPLv3)", "copyleft"),
        ("Copyright (c) 2015, somebody", "unknown"),
        ("MIT AND Secret-1.0", "unknown"),
        ("", "unknown"),
    ],
)
def test_a_licence_is_as_strict_as_its_strictest_part(text: str, kind: str) -> None:
    assert licences.kind(text) == kind


@pytest.mark.skipif(not licences.PAGE.exists(), reason="reads docs/")
def test_the_list_of_licences_is_that_of_the_pinned_packages() -> None:
    """Names and versions as in the files, licences as installed; what CUDA adds on some machines is left out."""
    rows = re.findall(
        r"^\| ([a-z0-9-]+) \| (\S+) \| (.*) \| ([a-z ]+) \|$", licences.PAGE.read_text("utf-8"), re.M
    )
    pinned = pins("constraints.txt")
    listed = {name: version for name, version, _, _ in rows}
    assert {canonicalize_name(requirement.name) for requirement in RUNTIME} <= listed.keys()
    assert listed == {name: pinned.get(name, "any") for name in listed}
    installed = {name: package for name, package in licences.needed().items() if package is not None}
    for name, version, text, kind in rows:
        package = installed.get(name)
        if package is not None and package.version.partition("+")[0] == version:
            assert (licences.stated(package).text, licences.stated(package).kind) == (text, kind)
    assert not [name for name, _, _, kind in rows if kind in ("copyleft", "unknown")]


def test_dependencies_hold_and_are_licensed(tmp_path: Path) -> None:
    assert [trial for trial in make(tmp_path, short=True) if trial.lost] == []


def test_an_audit_without_an_answer_counts_as_not_audited() -> None:
    silent = audit([sys.executable, "-c", "import sys; sys.exit('no answer from the service')"])
    assert silent.verdict == "UNTRIED"
    assert "NOT AUDITED" in silent.note
    assert "no answer from the service" in silent.note


def test_an_audit_that_skips_every_package_counts_as_not_audited() -> None:
    """As behind a mirror that has no advisories: pip-audit skips all packages and ends with 0."""
    found = {"dependencies": [{"name": "six", "skip_reason": "Dependency not found on PyPI"}]}
    trial = audit([sys.executable, "-c", f"import json; print(json.dumps({found}))"])
    assert trial.verdict == "UNTRIED"
    assert "NOT AUDITED" in trial.note


def test_vulnerable_packages_fail_and_unknown_ones_are_named() -> None:
    flaws = [{"id": "PYSEC-1"}, {"id": "PYSEC-2"}]
    found = [
        {"name": "a", "version": "1", "vulns": []},
        {"name": "b", "version": "2", "vulns": flaws},
        {"name": "c", "skip_reason": "not found"},
    ]
    trial = audit([sys.executable, "-c", f"import json; print(json.dumps({{'dependencies': {found}}}))"])
    assert (trial.tried, trial.lost) == (2, 1)
    assert "PYSEC-2" in trial.note
    assert "unknown to the service: c" in trial.note
