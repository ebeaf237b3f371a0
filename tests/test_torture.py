"""The torture run's short versions."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torture.fuzz.campaign import try_mutants
from torture.fuzz.targets import targets
from torture.part import run
from torture.parts import PARTS


# The others' short versions are tests/test_predicting.py, test_distributed.py and test_dependencies.py.
@pytest.mark.parametrize("name", ["crash", "numbers", "explorer"])
def test_nothing_is_lost(tmp_path: Path, name: str) -> None:
    said: list[str] = []
    assert run(PARTS[name], tmp_path / "work", short=True, say=said.append), said


@pytest.mark.parametrize("name", targets())
def test_whatever_a_file_holds_it_is_read_or_refused(name: str, tmp_path: Path) -> None:
    with torch.random.fork_rng():  # a saved state sets it
        assert try_mutants(targets()[name], tmp_path / name, count=400).tried >= 400
