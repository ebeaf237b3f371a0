"""Find phrases that make a sentence hard to read: `python .ci/words.py`, a part of `make lint`.

A reader whose first language is not English must understand every sentence at the first reading. The field's word is
always better than these phrases: name the caller or the user, give the number, say "NaN" and "4.9× faster".
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

PHRASES = (
    "nobody",
    "somebody",
    "whoever",
    "one's own",
    "so many",
    "is told",
    "are told",
    "times less",
    "is no number",
    "are no numbers",
    "that there is not",
)
#: Files and folders to search. Of the tests only the names of files, functions and classes count.
PLACES = ("src", "docs", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "tests")
#: Folders and files to skip.
EXCEPT: tuple[str, ...] = ()
ENDINGS = {".py", ".pyi", ".md", ".html", ".js", ".ts", ".css", ".txt", ".toml"}

#: A phrase may continue on the next line of a comment.
_GAP = r"[\s#_*]+"
_PHRASE = re.compile(
    r"(?<![a-z])("
    + "|".join(_GAP.join(map(re.escape, phrase.split())) for phrase in PHRASES)
    + r")(?![a-z])",
    re.IGNORECASE,
)
_TEST_NAME = re.compile(r"^[ \t]*(?:async )?(?:def|class) (\w+)", re.MULTILINE)


def find(text: str) -> Iterator[tuple[int, str]]:
    """Yield the line number and the phrase of each hit."""
    for hit in _PHRASE.finditer(text):
        yield text.count("\n", 0, hit.start()) + 1, re.sub(_GAP, " ", hit[1].lower())


def find_in_names(text: str) -> Iterator[tuple[int, str]]:
    """Yield the same for the names of the functions and classes in Python code."""
    for name in _TEST_NAME.finditer(text):
        for _, phrase in find(name[1]):
            yield text.count("\n", 0, name.start(1)) + 1, phrase


def files(places: Iterable[str]) -> Iterator[Path]:
    """Yield the text files under these places, in order, without those in `EXCEPT`."""
    for place in map(Path, places):
        for path in [place] if place.is_file() else sorted(place.rglob("*")):
            left_out = any(path.is_relative_to(other) for other in EXCEPT)
            if path.is_file() and path.suffix in ENDINGS and not left_out:
                yield path


def main(places: Sequence[str] = PLACES) -> int:
    """Print each hit as file:line: phrase, and return the exit code."""
    count = 0
    for path in files(places):
        in_tests = "tests" in path.parts
        hits = list((find_in_names if in_tests else find)(path.read_text(encoding="utf-8")))
        if in_tests:
            hits = [(1, phrase) for _, phrase in find(path.name)] + hits
        for line, phrase in hits:
            print(f"{path}:{line}: {phrase!r} is hard to read; use the field's word")
        count += len(hits)
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or PLACES))
