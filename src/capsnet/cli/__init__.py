"""The commands: thin calls into the library.

Heavy imports wait until a command needs them.
"""

from __future__ import annotations

import os
import sys

from capsnet.cli import training, models, serving, inspect, research  # isort: skip  # noqa: F401  (the order of --help)
from capsnet._support.errors import CapsnetError, shown
from capsnet.cli.app import app
from capsnet.cli.console import err, fail
from capsnet.distributed import connected

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line; print a `CapsnetError` in one line and exit with code 2."""
    # Allocating large buffers on huge pages takes a third of the time. PyTorch reads this on import.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    try:
        with connected():
            app()
    except CapsnetError as error:
        fail(str(error))
    except KeyboardInterrupt:
        fail("interrupted", 130)
    except SystemExit as ended:
        if ended.code == 130:  # Ctrl-C in a command, of which typer says nothing
            fail("interrupted", 130)
        raise
    except Exception as error:
        training = sys.modules.get("capsnet.training.loop")
        if training is not None and isinstance(error, training.Interrupted):
            err.print(shown(str(error)))
            sys.exit(128 + error.number)
        raise
