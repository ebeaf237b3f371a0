"""List the files of a folder in order, in constant memory."""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from capsnet._support.errors import CapsnetError, shown

#: Names held in memory at once. Larger directories are read again for each chunk: a million names in sixteen readings,
#: which takes seconds, while a million images take an hour.
NAMES_AT_ONCE = 65_536


class Entry(NamedTuple):
    """A name in a directory, and its kind. Links are not followed."""

    name: str
    kind: Literal["directory", "file", "link", "other"]


def files_in(folder: Path, endings: frozenset[str] | set[str]) -> Iterator[Path]:
    """Yield the files under `folder` with one of the `endings`, sorted by path.

    Endings are lower case and have a dot. Hidden files and directories, and linked directories, are skipped. Linked
    files are included.

    Raises:
        CapsnetError: a directory cannot be read.
    """
    for entry in entries_in(folder):
        if entry.name.startswith("."):  # as in folders to train on; also macOS's "._photo.jpg"
            continue
        path = folder / entry.name
        if entry.kind == "directory":
            yield from files_in(path, endings)
        elif path.suffix.lower() in endings and path.is_file():
            yield path


def entries_in(folder: Path) -> Iterator[Entry]:
    """Yield everything in a directory, sorted by name.

    Raises:
        CapsnetError: the directory cannot be read.
    """
    last = ""
    while True:
        try:
            with os.scandir(folder) as entries:
                found = heapq.nsmallest(NAMES_AT_ONCE, (_entry(e) for e in entries if e.name > last))
        except OSError as error:
            raise CapsnetError(
                f"{shown(folder)}: cannot be read ({error.strerror}); check its permissions"
            ) from error
        yield from found
        if len(found) < NAMES_AT_ONCE:
            return
        last = found[-1].name


def _entry(entry: os.DirEntry[str]) -> Entry:
    if entry.is_symlink():
        return Entry(entry.name, "link")
    if entry.is_dir(follow_symlinks=False):
        return Entry(entry.name, "directory")
    return Entry(entry.name, "file" if entry.is_file(follow_symlinks=False) else "other")
