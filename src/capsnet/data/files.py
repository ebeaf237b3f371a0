"""Find data files on this machine, and download missing ones."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from capsnet._support.errors import CapsnetError, shown

#: Debian and Ubuntu install packaged data sets here, for example dataset-fashion-mnist.
SYSTEM_DIRECTORY = Path("/usr/share/datasets")


def where_to_put(name: str, data_dir: Path | None = None) -> str:
    """Return the end of an error message: where the user can put missing files."""
    if data_dir is not None:
        return f"put them into {shown(data_dir / name)}, or give another --data-dir"
    return f"put them into DIR/{name} and give --data-dir DIR, or set CAPSNET_DATA=DIR"


def root_of(value: Path | str, name: str, option: str = "--data-dir") -> Path:
    """Resolve a data directory given by the user.

    Raises:
        CapsnetError: it is not a directory.
    """
    root = Path(value).expanduser()
    if not root.is_dir():
        raise CapsnetError(f"{option}: {shown(root)} is not a directory; give the folder that holds {name}/")
    return root


def directories(name: str, data_dir: Path | str | None) -> list[Path]:
    """Return the directories to search for files of the set `name`, in order.

    Raises:
        CapsnetError: `data_dir` or $CAPSNET_DATA is not a directory.
    """
    roots = []
    for option, value in (("--data-dir", data_dir), ("CAPSNET_DATA", os.environ.get("CAPSNET_DATA"))):
        if value:
            roots.append(root_of(value, name, option))
    # DIR/name first: MNIST and Fashion-MNIST use the same file names.
    return [place for root in roots for place in (root / name, root)] + [SYSTEM_DIRECTORY / name]


def locate(name: str, wanted: Sequence[str], data_dir: Path | str | None) -> list[Path] | None:
    """Find the files `wanted` in the first directory that has any of them.

    A file may be there with `.gz` or without.

    Returns:
        Their paths, in the order of `wanted`; None if no directory has any of them.

    Raises:
        CapsnetError: a directory holds some of the files, but not all.
    """
    for directory in directories(name, data_dir):
        found = {}
        for file_name in wanted:
            for candidate in (directory / file_name, directory / file_name.removesuffix(".gz")):
                if candidate.is_file():
                    found[file_name] = candidate
                    break
        if len(found) == len(wanted):
            return [found[file_name] for file_name in wanted]
        if found:
            missing = ", ".join(file_name for file_name in wanted if file_name not in found)
            raise CapsnetError(
                f"{name}: {shown(directory)} has {next(iter(found))} but not {missing}; copy the rest there"
            )
    return None


@dataclass(frozen=True)
class Download:
    """Files on public mirrors.

    Args:
        mirrors: base addresses, tried in order, each ending in "/".
        hashes: file name → "sha256:…" (or "md5:…") of the file on the mirror.
    """

    mirrors: tuple[str, ...]
    hashes: Mapping[str, str]


def fetch(name: str, file_name: str, source: Download, data_dir: Path | str | None = None) -> Path:
    """Return a file from the cache, or download it from the first mirror that has it.

    A file enters the cache only when it is complete and its hash is right.

    Raises:
        CapsnetError: no mirror answers, or the mirrors' file is not the published one.
    """
    import logging

    import pooch
    from requests.exceptions import RequestException

    on_terminal = sys.stderr.isatty()
    pooch.get_logger().setLevel(logging.INFO if on_terminal else logging.WARNING)
    reason: Exception | None = None
    for mirror in source.mirrors:
        try:
            path = pooch.retrieve(
                mirror + file_name,
                known_hash=source.hashes[file_name],
                fname=file_name,
                path=pooch.os_cache("capsnet") / name,
                progressbar=on_terminal,
            )
            return Path(path)
        except (RequestException, OSError, ValueError) as error:
            reason = error
    what = "could not be downloaded" if isinstance(reason, OSError) else "has other contents on the mirror"
    remedy = where_to_put(name, Path(data_dir) if data_dir else None)
    raise CapsnetError(
        f"{name}: {file_name} is not on this machine and {what} ({type(reason).__name__}); {remedy}"
    ) from reason


def obtain(
    name: str, wanted: Sequence[str], data_dir: Path | str | None, download: bool, source: Download
) -> list[Path]:
    """Return the files `wanted`, and download them if they are missing.

    Local files (`locate`) come first, then the cache and the mirrors (`fetch`).

    Raises:
        CapsnetError: the files are not on this machine, and downloading is off or fails.
    """
    paths = locate(name, wanted, data_dir)
    if paths is not None:
        return paths
    if not download:
        remedy = where_to_put(name, Path(data_dir) if data_dir else None)
        raise CapsnetError(f"{name}: {wanted[0]} is not on this machine and downloading is off; {remedy}")
    return [fetch(name, file_name, source, data_dir) for file_name in wanted]
