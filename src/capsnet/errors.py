"""What a user can put right: one clear line, exit code 2."""


class CapsnetError(ValueError):
    """Bad input. The message is one line: what is wrong, where, and how to fix it."""
