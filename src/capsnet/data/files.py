"""Where data files are looked for, and how missing ones are fetched."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from capsnet._support.errors import CapsnetError, shown

#: Debian and Ubuntu install packaged data sets here (dataset-fashion-mnist, for one).
SYSTEM_DIRECTORY = Path("/usr/share/datasets")


def where_to_put(name: str, data_dir: Path | None = None) -> str:
    """The remedy for missing files, for error messages."""
    if data_dir is not None:
        return f"put them into {shown(data_dir / name)}, or give another --data-dir"
    return f"put them into DIR/{name} and give --data-dir DIR, or set CAPSNET_DATA=DIR"


def root_of(value: Path | str, name: str, said_by: str = "--data-dir") -> Path:
    """The directory that somebody says holds data.

    Raises:
        CapsnetError: it is none.
    """
    root = Path(value).expanduser()
    if not root.is_dir():
        raise CapsnetError(f"{said_by}: {shown(root)} is not a directory; give the folder that holds {name}/")
    return root


def directories(name: str, data_dir: Path | str | None) -> list[Path]:
    """The directories where files of the set `name` may lie, in the order of search.

    Raises:
        CapsnetError: `data_dir` or $CAPSNET_DATA is not a directory.
    """
    roots = []
    for said_by, value in (("--data-dir", data_dir), ("CAPSNET_DATA", os.environ.get("CAPSNET_DATA"))):
        if value:
            roots.append(root_of(value, name, said_by))
    # DIR/name first: MNIST and Fashion-MNIST use the same file names.
    return [place for root in roots for place in (root / name, root)] + [SYSTEM_DIRECTORY / name]


def locate(name: str, wanted: Sequence[str], data_dir: Path | str | None) -> list[Path] | None:
    """The files `wanted`, in that order, from the first directory that has any of them; None if none has.

    A file may lie there with `.gz` or without.

    Raises:
        CapsnetError: a directory holds some of the files but not all.
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
        hashes: file name → "sha256:…" (or "md5:…") of the file as it is served.
    """

    mirrors: tuple[str, ...]
    hashes: Mapping[str, str]


def fetch(name: str, file_name: str, source: Download, data_dir: Path | str | None = None) -> Path:
    """The file from the cache, or from the first mirror that serves it.

    It appears in the cache only once it is complete and its hash is right.

    Raises:
        CapsnetError: no mirror answers, or what they serve is not the published file.
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
    what = "could not be downloaded" if isinstance(reason, OSError) else "was served with other contents"
    remedy = where_to_put(name, Path(data_dir) if data_dir else None)
    raise CapsnetError(
        f"{name}: {file_name} is not on this machine and {what} ({type(reason).__name__}); {remedy}"
    ) from reason


def obtain(
    name: str, wanted: Sequence[str], data_dir: Path | str | None, download: bool, source: Download
) -> list[Path]:
    """The files `wanted`: local ones first (`locate`), then the cache and the mirrors (`fetch`).

    Raises:
        CapsnetError: they are not here and may not or cannot be downloaded.
    """
    paths = locate(name, wanted, data_dir)
    if paths is not None:
        return paths
    if not download:
        remedy = where_to_put(name, Path(data_dir) if data_dir else None)
        raise CapsnetError(f"{name}: {wanted[0]} is not on this machine and downloading is off; {remedy}")
    return [fetch(name, file_name, source, data_dir) for file_name in wanted]
