"""A command line that runs in this process: the fixture `capsnet` also says what it printed."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from unittest.mock import patch


@dataclass
class Outcome:
    code: int
    out: str
    err: str


Command = Callable[..., Outcome]


def assert_one_line(outcome: Outcome, *words: str) -> None:
    """It ended with 2 and one line that has these words."""
    assert outcome.code == 2, outcome
    assert outcome.err.count("\n") == 1, outcome.err
    assert outcome.err.startswith("error: ")
    for word in words:
        assert word in outcome.err


def run(*arguments: object) -> int:
    """Run `capsnet ARGUMENTS` through the entry point of the installed command. Its exit code."""
    from capsnet.cli import main

    with patch.object(sys, "argv", ["capsnet", *map(str, arguments)]):
        try:
            main()
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else int(bool(end.code))
    return 0
