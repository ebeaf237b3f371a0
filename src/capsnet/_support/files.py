"""Files that are whole or absent: written beside, synced, then renamed."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from math import isfinite
from pathlib import Path
from typing import Any

from capsnet._support.errors import CannotWrite, CapsnetError, shown

#: As Python objects JSON takes up to twenty times its length. The longest that capsnet writes has some 100 kB.
MAX_JSON_BYTES = 2**24
MAX_NESTING = 64
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
    refuse_folder(path)
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
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        advice = "free some space"
    elif error.errno in (errno.ENOTDIR, errno.EEXIST):
        advice = "a file is where a folder should be; remove it"
    else:
        advice = "make it writable"
    return CannotWrite(
        f"cannot write {shown(path)}: {error.strerror or error}; {advice}, or choose another place"
    )


def refuse_folder(path: Path) -> None:
    """Refuse to write a file where there is a folder.

    Raises:
        CannotWrite: there is one.
    """
    if path.is_dir():
        raise CannotWrite(f"cannot write {shown(path)}: it is a folder; name a file")


def refuse_place(path: Path) -> None:
    """Refuse to write a file that could not be written, before work is spent on it.

    Raises:
        CannotWrite: it is a folder, or its folder is not there.
    """
    refuse_folder(path)
    if not path.parent.is_dir():
        raise CannotWrite(
            f"cannot write {shown(path)}: there is no folder {shown(path.parent)}; make it first"
        )


def hold(lock_file: Path, busy: str) -> Any:
    """A lock that this process holds until it calls `release()` on it, or ends.

    Raises:
        CannotWrite: the folder is not writable.
        CapsnetError: another process holds it; `busy` is the message.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(lock_file)
    try:
        lock_file.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    except Timeout:
        raise CapsnetError(busy) from None
    except OSError as error:
        raise cannot_write(lock_file.parent, error) from error
    return lock


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
    if not path.exists():
        raise CapsnetError(f"{path} is missing; is {path.parent} a run folder or a saved model?")
    try:
        if not path.is_file():  # a pipe would be waited for
            raise ValueError("it is no file")
        with path.open("rb") as file:
            content = file.read(MAX_JSON_BYTES + 1)
        if len(content) > MAX_JSON_BYTES:
            raise ValueError(f"it has more than {MAX_JSON_BYTES:,} bytes")
        return parse_json(content.decode())
    except (OSError, ValueError) as error:
        raise CapsnetError(
            f"{path} cannot be read as JSON ({shown(str(error))[:200]}); restore it or train again"
        ) from error


def parse_json(text: str, *, finite: bool = True) -> Any:
    """JSON from strangers: nothing in it surprises later.

    Args:
        text: the JSON.
        finite: refuse NaN and infinity, which are no JSON, but which Python writes.

    Raises:
        ValueError: it is no JSON; or it says a thing twice, nests deeply, or holds a number that float64 or
            int64 cannot, or text that cannot be written as UTF-8.
    """
    if text.count("[") + text.count("{") > MAX_NESTING:
        _check_nesting(text)
    value = json.loads(
        text,
        object_pairs_hook=_once_each,
        parse_constant=_finite if finite else float,
        parse_float=_finite if finite else float,
        parse_int=_whole,
    )
    if "\\ud" in text.lower():  # half of a character
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _check_nesting(text: str) -> None:
    """Before it is parsed: Python's parser is recursive."""
    depth = 0
    for token in re.finditer(r'"(?:[^"\\]|\\.)*"?|[\[{\]}]', text, re.DOTALL):
        if token[0][0] == '"':
            continue
        depth += 1 if token[0] in "[{" else -1
        if depth > MAX_NESTING:
            raise ValueError(f"nested more than {MAX_NESTING} deep")


def _once_each(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name[:100]!r} is there twice")
        found[name] = value
    return found


def _finite(digits: str) -> float:
    number = float(digits)
    if not isfinite(number):
        raise ValueError(f"{digits[:20]} is no finite number")
    return number


def _whole(digits: str) -> int:
    if len(digits) > 19 or not -(2**63) <= int(digits) < 2**63:
        raise ValueError(f"{digits[:20]}… has too many digits")
    return int(digits)


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
