"""What a user can put right: one clear line, exit code 2."""


class CapsnetError(ValueError):
    """Bad input. The message is one line: what is wrong, where, and how to fix it."""


class CannotWrite(CapsnetError):
    """A file could not be written: the disk is full, or the folder is not writable."""


class NotFinite(CapsnetError):
    """A loss, a gradient, a weight or a score is NaN or infinite."""
