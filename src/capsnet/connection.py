"""What holds the processes of one launch together: how it breaks, and how they part."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from capsnet.errors import CapsnetError


class ConnectionLost(CapsnetError):
    """Another process of the launch has ended, or cannot be reached any more."""


def refuse_others(command: str, instead: str) -> None:
    """For what one process does by itself: several that were launched together would write the same files.

    Args:
        command: what was asked for.
        instead: what to do to use more of the machine.

    Raises:
        CapsnetError: this process is one of several.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise CapsnetError(f"`capsnet {command}` is for one process; start it without a launcher{instead}")


@contextmanager
def connected(advice: str = "give the same command again") -> Iterator[None]:
    """What PyTorch says of a connection that breaks, in one line.

    Args:
        advice: what to do then.

    Raises:
        ConnectionLost: it broke.
    """
    try:
        yield
    except RuntimeError as error:
        if not _is_of_a_connection(error):
            raise
        raise ConnectionLost(
            f"another process of this launch has ended or cannot be reached; {advice}"
        ) from error


def _is_of_a_connection(error: RuntimeError) -> bool:
    from torch import distributed

    # Gloo's errors are plain RuntimeErrors, which name the file of its source that they come from.
    if "/gloo/" in str(error):
        return True
    return distributed.is_available() and isinstance(error, distributed.DistError)


@contextmanager
def parting() -> Iterator[None]:
    """Processes that end as they should, by `sys.exit` too, do it together.

    None of them is taken for dead by the launcher while another one saves or says something; and no thread of the
    connection is left, which would abort the exit of a few.
    """
    try:
        yield
    except SystemExit:
        _part()
        raise
    _part()


def _part() -> None:
    from accelerate import PartialState
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        with suppress(RuntimeError):  # another one was killed just now: there is nothing left to wait for
            PartialState().wait_for_everyone()
        distributed.destroy_process_group()
