"""Files that are whole or absent: written beside, synced, then renamed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from capsnet.errors import CapsnetError


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Call `write` with a neighbouring path, then put the finished file in place of `path`.

    A reader, or a machine that dies, sees the old file or the new one and nothing between.

    Raises:
        CapsnetError: the folder is not writable, or the disk is full; the old file is still there.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(beside)
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        beside.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        reason = error.strerror or str(error)
        raise CapsnetError(
            f"cannot write {path}: {reason}; free some space or choose another folder with --out"
        ) from error
    finally:
        with suppress(OSError):
            beside.unlink()


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically."""
    write_atomically(path, lambda beside: _ignore(beside.write_bytes(content)))


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


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":  # Windows has no handle for a folder
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
