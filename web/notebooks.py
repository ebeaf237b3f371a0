"""Execute the notebooks of docs/notebooks: `python web/notebooks.py OUT [NAME…]`.

Writes OUT/NAME.ipynb with its outputs, for web/hooks.py. A cell that fails ends this with its traceback.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

SOURCES = Path(__file__).parents[1] / "docs" / "notebooks"
#: Seconds that a cell may take on a busy machine.
PATIENCE = 600


def main() -> None:
    """Execute each notebook in an empty folder of its own."""
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    # Commands in cells ("!capsnet …") are those of this environment, and print plain lines.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    os.environ |= {"NO_COLOR": "1", "COLUMNS": "100", "PYTHONWARNINGS": "ignore:IProgress not found"}
    for name in sys.argv[2:] or sorted(path.stem for path in SOURCES.glob("*.py")):
        source = SOURCES / f"{name}.py"
        notebook = jupytext.read(source)
        with tempfile.TemporaryDirectory() as folder:
            NotebookClient(
                notebook,
                timeout=PATIENCE,
                startup_timeout=PATIENCE,
                extra_arguments=["--log-level=40"],  # no word about ports: they are the loopback's
                kernel_name="python3",
                resources={"metadata": {"path": folder}},
            ).execute()
        nbformat.write(notebook, out / f"{name}.ipynb")


if __name__ == "__main__":
    main()
