"""What a user can put right: one clear line, exit code 2."""

from collections.abc import Iterable
from pathlib import Path


class CapsnetError(ValueError):
    """Bad input. The message is one line: what is wrong, where, and how to fix it."""


class CannotWrite(CapsnetError):
    """A file could not be written: the disk is full, or the folder is not writable."""


class NotFinite(CapsnetError):
    """A loss, a gradient, a weight or a score is NaN or infinite."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a message about a name that nobody knows: the known one that is most like it, if one is.

    >>> did_you_mean("mnst", ["mnist", "cifar10"])
    "; did you mean 'mnist'?"
    """
    from difflib import get_close_matches

    alike = get_close_matches(name, list(known), n=1)
    return f"; did you mean {alike[0]!r}?" if alike else ""


def shown(text: Path | str) -> str:
    """A file's or a class's name on one line of a terminal: what cannot be printed is escaped.

    Line breaks and colours would let a name write lines of its own; bytes that are no UTF-8 cannot be written.

    >>> shown("a" + chr(27) + "b")
    'a\\\\x1bb'
    """
    text = str(text)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
