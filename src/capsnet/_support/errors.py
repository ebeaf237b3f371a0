"""Errors that a user can correct: one clear line, exit code 2."""

from collections.abc import Iterable
from pathlib import Path


class CapsnetError(ValueError):
    """Bad input. The message is one line: what is wrong, where, and how to fix it."""


class CannotWrite(CapsnetError):
    """A file could not be written: the disk is full, or the folder is not writable."""


class InUse(CapsnetError):
    """Another process holds a folder."""


class NotFinite(CapsnetError):
    """A loss, a gradient, a weight or a score is NaN or infinite."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return an error suffix that suggests the closest known name, or "".

    >>> did_you_mean("mnst", ["mnist", "cifar10"])
    "; did you mean 'mnist'?"
    """
    from difflib import get_close_matches

    alike = get_close_matches(name, list(known), n=1)
    return f"; did you mean {alike[0]!r}?" if alike else ""


def shown(text: Path | str) -> str:
    """Escape the unprintable characters of a name, so that it fits on one line.

    Line breaks and colour codes in the name of a file or class could fake output. Bytes that are not UTF-8 cannot be
    printed.

    >>> shown("a" + chr(27) + "b")
    'a\\\\x1bb'
    """
    text = str(text)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
