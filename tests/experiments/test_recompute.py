"""The verdicts once more, from the records' JSON alone: by a script that shares nothing with the package."""

import ast
import json
import subprocess
import sys
from collections import Counter
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

from capsnet.experiments.record import read_records
from capsnet.experiments.record_groups import Group, groups
from capsnet.experiments.verdicts import Judgement, judgements

SCRIPT = Path(__file__).with_name("recompute.py")
RESULTS = Path(__file__).parents[2] / "results"


@pytest.fixture(scope="module")
def recompute() -> ModuleType:
    spec = spec_from_file_location("recompute", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def judged() -> dict[str, tuple[Group, list[Judgement]]]:
    """Of each group at the quick scale whose claims all have two seeds or more."""
    if not RESULTS.is_dir():
        pytest.skip("reads results/")
    quick = [group for group in groups(read_records(RESULTS)) if group.scale == "quick" and not group.label]
    found = {group.experiment.name: (group, judgements(group)) for group in quick}
    return {
        name: (group, of_group)
        for name, (group, of_group) in found.items()
        if of_group and all(one.difference.seeds > 1 for one in of_group)
    }


def claims(of_group: list[Judgement]) -> list[dict[str, object]]:
    return [
        {
            "ours": one.claim.ours,
            "against": one.claim.against,
            "measure": one.claim.measure,
            "better": one.measure.better,
            "margin": one.claim.margin.size,
        }
        for one in of_group
    ]


def test_the_verdicts_of_the_records_are_what_an_independent_computation_finds(
    recompute: ModuleType, judged: dict[str, tuple[Group, list[Judgement]]]
) -> None:
    compared: Counter[str] = Counter()
    for name, (_, of_group) in judged.items():
        again = recompute.judge(RESULTS, name, "quick", claims(of_group))
        for ours, theirs in zip(of_group, again, strict=True):
            difference = ours.difference
            assert ours.word == theirs["verdict"], ours.line
            assert difference.mean == pytest.approx(theirs["difference"], abs=1e-12)
            assert ours.p == pytest.approx(theirs["p"], rel=1e-6)
            assert ours.corrected == pytest.approx(theirs["p_holm"], rel=1e-6)
            assert (difference.low_90, difference.high_90) == pytest.approx(
                (theirs["low_90"], theirs["high_90"])
            )
            compared[ours.word] += 1
    assert compared.total() >= 10
    assert len(compared) >= 3, "verdicts of several kinds"


def test_the_script_needs_nothing_but_numpy_and_scipy(
    judged: dict[str, tuple[Group, list[Judgement]]], tmp_path: Path
) -> None:
    imported = {
        (node.module if isinstance(node, ast.ImportFrom) else node.names[0].name).partition(".")[0]
        for node in ast.walk(ast.parse(SCRIPT.read_text("utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert imported - set(sys.stdlib_module_names) == {"numpy", "scipy"}
    asked = {"table1 quick": claims(judged["table1"][1])}
    (tmp_path / "claims.json").write_text(json.dumps(asked))
    command = [sys.executable, SCRIPT, RESULTS, tmp_path / "claims.json"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    words = [one.word for one in judged["table1"][1]]
    assert [line.rpartition("'verdict': ")[2].strip("'}") for line in printed] == words
