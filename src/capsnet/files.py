"""Files that are whole or absent: written beside, synced, then renamed."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from capsnet.errors import CannotWrite, CapsnetError

#: Names of files that were being written: of a process that died, if nobody writes in the folder.
_BESIDE = re.compile(r"\..+\.\d+\.tmp")


def write_atomically(path: Path, write: Callable[[Path], None], keep_old: Path | None = None) -> None:
    """Call `write` with a neighbouring path, then put the finished file in place of `path`.

    A reader, or a machine that dies, sees the old file or the new one and nothing between.

    Args:
        path: the file.
        write: writes the content to the path that it is given.
        keep_old: what the old file, if there is one, is renamed to. A machine that dies just then leaves it
            there and nothing at `path`.

    Raises:
        CannotWrite: the folder is not writable, or the disk is full; the old file is still there.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(beside)
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        if keep_old is not None and path.exists():
            path.replace(keep_old)
        beside.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        with suppress(OSError):
            beside.unlink()


def cannot_write(path: Path, error: OSError) -> CannotWrite:
    """The error that says what cannot be written, why, and what to do about it."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    advice = "free some space" if full else "make it writable"
    return CannotWrite(
        f"cannot write {path}: {error.strerror or error}; {advice}, or choose another folder with --out"
    )


def is_leftover(path: Path) -> bool:
    """Whether a file is the unfinished one of a process that is writing, or that died while it did."""
    return bool(_BESIDE.fullmatch(path.name))


def write_bytes(path: Path, content: bytes, keep_old: Path | None = None) -> None:
    """Write a file atomically; see `write_atomically`."""
    write_atomically(path, lambda beside: _ignore(beside.write_bytes(content)), keep_old)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, in UTF-8."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically. NaN and infinity are refused: they are no JSON."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        CapsnetError: there is no such file, or it is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CapsnetError(f"{path} is missing; is {path.parent} a run folder or a saved model?") from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise CapsnetError(f"{path} cannot be read as JSON ({error}); restore it or train again") from error


def _ignore(_: object) -> None:
    return None


def sync_folder(folder: Path) -> None:
    """Make renames and new names in a folder last."""
    if os.name != "posix":  # Windows has no handle for a folder
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
