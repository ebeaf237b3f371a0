"""Write files atomically, and read JSON from untrusted files."""

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

from capsnet._support.errors import CannotWrite, CapsnetError, InUse, shown

#: Parsed JSON takes up to twenty times its length in memory. The longest file that capsnet writes has about 100 kB.
MAX_JSON_BYTES = 2**24
MAX_NESTING = 64
#: Names of temporary files. If no process writes in the folder, they are left over from a crashed process.
_BESIDE = re.compile(r"\..+\.\d+\.tmp")


def write_atomically(path: Path, write: Callable[[Path], object], keep_old: Path | None = None) -> None:
    """Write a file beside `path`, then rename it to `path`.

    Readers see either the old file or the new one, never a part of it. This holds after a crash of the machine too.

    Args:
        path: the file to write.
        write: writes the content to the path that it receives.
        keep_old: new name of the old file, if there is one. After a crash between the two renames, only this file
            exists.

    Raises:
        CannotWrite: the folder is not writable, or the disk is full. The old file is unchanged.
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
    """Return an error that says which file cannot be written, why, and how to fix it."""
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
    """Raise if `path`, where a file is to be written, is a folder.

    Raises:
        CannotWrite: it is a folder.
    """
    if path.is_dir():
        raise CannotWrite(f"cannot write {shown(path)}: it is a folder; name a file")


def refuse_place(path: Path) -> None:
    """Raise if a file cannot be written, before any work is done for it.

    Raises:
        CannotWrite: `path` is a folder, or its parent folder does not exist.
    """
    refuse_folder(path)
    if not path.parent.is_dir():
        raise CannotWrite(
            f"cannot write {shown(path)}: the folder {shown(path.parent)} does not exist; create it first"
        )


def hold(lock_file: Path, busy: str) -> Any:
    """Lock a file until `release()` is called on the result, or the process ends.

    Raises:
        CannotWrite: the folder is not writable.
        InUse: another process holds the lock. `busy` is the message.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(lock_file)
    try:
        lock_file.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    except Timeout:
        raise InUse(busy) from None
    except OSError as error:
        raise cannot_write(lock_file.parent, error) from error
    return lock


def is_leftover(path: Path) -> bool:
    """Return whether a file is the temporary file of an atomic write."""
    return bool(_BESIDE.fullmatch(path.name))


def write_bytes(path: Path, content: bytes, keep_old: Path | None = None) -> None:
    """Write a file atomically; see `write_atomically`."""
    write_atomically(path, lambda beside: beside.write_bytes(content), keep_old)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, in UTF-8."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically. NaN and infinity are refused: JSON does not have them."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        CapsnetError: the file is missing, or is not JSON.
    """
    if not path.exists():
        raise CapsnetError(f"{path} is missing; is {path.parent} a run folder or a saved model?")
    try:
        if not path.is_file():  # reading a pipe would block
            raise ValueError("it is not a file")
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
    """Parse JSON from an untrusted file.

    Args:
        text: the JSON.
        finite: refuse NaN and infinity. Python writes them, but they are not JSON.

    Raises:
        ValueError: not JSON; the same key twice; nested too deeply; a number that does not fit float64 or int64;
            text that is not valid Unicode.
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
    if "\\ud" in text.lower():  # may be half of a surrogate pair
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _check_nesting(text: str) -> None:
    """Raise if JSON is nested too deeply for Python's recursive parser."""
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
            raise ValueError(f"the key {name[:100]!r} occurs twice")
        found[name] = value
    return found


def _finite(digits: str) -> float:
    number = float(digits)
    if not isfinite(number):
        raise ValueError(f"{digits[:20]} is not a finite number")
    return number


def _whole(digits: str) -> int:
    if len(digits) > 19 or not -(2**63) <= int(digits) < 2**63:
        raise ValueError(f"{digits[:20]}… has too many digits")
    return int(digits)


def sync_folder(folder: Path) -> None:
    """Flush renames and new files in a folder to disk."""
    if os.name != "posix":  # Windows has no handle for a folder
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
