"""What the fixture `capsnet` gives to tests: a command line that runs in this process."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class Outcome:
    code: int
    out: str
    err: str


Command = Callable[..., Outcome]
