"""The torture run's short versions."""

from __future__ import annotations

from pathlib import Path

from torture.part import run
from torture.parts import PARTS


def test_the_explorer_under_load(tmp_path: Path) -> None:
    said: list[str] = []
    assert run(PARTS["explorer"], tmp_path / "work", short=True, say=said.append), said


def test_answers_for_many_files(tmp_path: Path) -> None:
    said: list[str] = []
    assert run(PARTS["streaming"], tmp_path / "work", short=True, say=said.append), said
