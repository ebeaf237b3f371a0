"""The lint step for phrases that are hard to read (.ci/words.py)."""

import runpy
from pathlib import Path

import pytest

WORDS = runpy.run_path(str(Path(__file__).parents[2] / ".ci" / "words.py"))


@pytest.mark.parametrize("phrase", WORDS["PHRASES"])
@pytest.mark.parametrize("before", ["", "# A comment.\n# "])
def test_lint_fails_on_each_phrase_and_names_file_line_and_phrase(
    phrase: str, before: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "page.md"
    file.write_text(f"A clean line.\n{before}What {phrase.capitalize()} here.\n")
    assert WORDS["main"]([str(tmp_path)]) == 1
    line = 2 + before.count("\n")
    assert capsys.readouterr().out.startswith(f"{file}:{line}: {phrase!r} ")


def test_lint_finds_a_phrase_across_two_lines_of_a_comment() -> None:
    assert list(WORDS["find"]("x = 1\n    # It is\n    # told so many\n    # times.")) == [
        (2, "is told"),
        (3, "so many"),
    ]


def test_lint_passes_words_that_only_contain_a_phrase() -> None:
    assert not list(WORDS["find"]("nobodys thesaurus: also manyfold, this told, sometimes lesser"))


def test_lint_checks_the_names_of_tests_but_not_their_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tests = tmp_path / "tests"
    tests.mkdir()
    file = tests / "test_it.py"
    file.write_text('TEXT = "nobody"\n')
    assert WORDS["main"]([str(tmp_path)]) == 0
    file.write_text('TEXT = "nobody"\n\n\ndef test_error_is_told_to_whoever_asks() -> None: ...\n')
    assert WORDS["main"]([str(tmp_path)]) == 1
    assert capsys.readouterr().out.splitlines()[0].startswith(f"{file}:4: 'is told' ")
