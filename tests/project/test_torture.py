"""The torture run's short versions."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
import torture.__main__
from torture.fuzz.campaign import try_mutants
from torture.fuzz.targets import targets
from torture.part import Part, Trial, run
from torture.parts import PARTS


# The others' short versions are tests/inference/test_prediction.py, tests/test_distributed.py and
# tests/project/test_dependencies.py.
@pytest.mark.slow
@pytest.mark.parametrize("name", ["crash", "numbers", "explorer"])
def test_short_torture_runs_lose_nothing(tmp_path: Path, name: str) -> None:
    said: list[str] = []
    trials = run(PARTS[name], tmp_path / "work", short=True, say=said.append)
    assert {trial.verdict for trial in trials} == {"ok"}, said


@pytest.mark.parametrize("name", targets())
def test_mutated_files_are_read_or_refused(name: str, tmp_path: Path) -> None:
    with torch.random.fork_rng():  # a saved state sets it
        assert try_mutants(targets()[name], tmp_path / name, count=400).tried >= 400


@pytest.mark.parametrize(
    ("trial", "offline", "fails"),
    [
        (Trial("kills", 3, 0), False, False),
        (Trial("kills", 3, 1), True, True),
        (Trial("an audit", 0, 0, "nobody answered"), False, True),
        (Trial("an audit", 0, 0, "nobody answered"), True, False),
    ],
)
def test_lost_or_untried_trials_fail_the_run(
    trial: Trial,
    offline: bool,
    fails: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    part = Part("one", "One", "", lambda work, short: [trial])
    monkeypatch.setattr(torture.__main__, "PARTS", {"one": part})
    monkeypatch.setattr(sys, "argv", ["torture", "--short", *(["--offline"] if offline else [])])
    assert torture.__main__.main() == fails
    assert (f"{trial.verdict}: {trial.what}" in capsys.readouterr().out) == fails
