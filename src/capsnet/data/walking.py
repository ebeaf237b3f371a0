"""The files of a folder in order, however many there are, in memory that does not grow with them."""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterator
from pathlib import Path

from capsnet.errors import CapsnetError, shown

#: Names held at a time. A directory is read once for every so many of its entries: a million names in sixteen
#: readings, which is seconds beside the hour that a million images take.
NAMES_AT_ONCE = 65_536


def files_in(folder: Path, endings: frozenset[str] | set[str]) -> Iterator[Path]:
    """Files under `folder` with one of `endings` (lower case, with the dot), sorted by the parts of their path.

    Linked directories are not entered; linked files are given.

    Raises:
        CapsnetError: a directory cannot be read.
    """
    for name, is_folder in _sorted_entries(folder):
        path = folder / name
        if is_folder:
            yield from files_in(path, endings)
        elif path.suffix.lower() in endings and path.is_file():
            yield path


def _sorted_entries(folder: Path) -> Iterator[tuple[str, bool]]:
    """(name, whether it is a directory) of everything in a directory, sorted by name."""
    last = ""
    while True:
        try:
            with os.scandir(folder) as entries:
                later = ((e.name, e.is_dir(follow_symlinks=False)) for e in entries if e.name > last)
                found = heapq.nsmallest(NAMES_AT_ONCE, later)
        except OSError as error:
            raise CapsnetError(
                f"{shown(folder)}: cannot be read ({error.strerror}); check its rights"
            ) from error
        yield from found
        if len(found) < NAMES_AT_ONCE:
            return
        last = found[-1][0]
