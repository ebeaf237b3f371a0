"""Find the ONNX file of a model; export it once, in another process."""

from __future__ import annotations

import atexit
import hashlib
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

from capsnet._support.errors import CapsnetError, shown
from capsnet._support.version import __version__

SHIPPED = Path(__file__).parents[2] / "pretrained"


def onnx_of(model: str) -> Path:
    """Return the path of the model's ONNX file.

    Args:
        model: an ONNX file, or a model as `capsnet export` takes it, whose export is kept in the user's cache;
            models on the Hub are exported anew.

    Raises:
        CapsnetError: the model does not exist or cannot be exported, or PyTorch is not installed.
    """
    path = Path(model)
    if path.suffix == ".onnx":
        if not path.is_file():
            raise CapsnetError(
                f"{shown(path)}: there is no such file; write one with: capsnet export MODEL FILE.onnx"
            )
        return path
    if find_spec("torch") is None:
        raise CapsnetError(
            f"{shown(model)}: PyTorch is not installed, which exports a run; export it elsewhere with capsnet export "
            f"{shown(model)} model.onnx, and serve that file"
        )
    target = _cached(path)
    if not target.exists():
        print(f"{shown(model)}: exporting to ONNX", file=sys.stderr, flush=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "capsnet", "export", model, str(target)]
        done = subprocess.run(
            command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["no message"]
            raise CapsnetError(lines[-1].removeprefix("error: "))
    return target


def _cached(model: Path) -> Path:
    """Return where the export of a model belongs: named after its files, or a new folder if they are not here."""
    for folder in (model, SHIPPED / model):
        files = [folder / name for name in ("config.json", "model.safetensors")]
        if all(file.is_file() for file in files):
            import pooch

            digest = hashlib.sha256(__version__.encode())
            for file in files:
                digest.update(file.read_bytes())
            return Path(pooch.os_cache("capsnet")) / "served" / f"{digest.hexdigest()[:24]}.onnx"
    own = mkdtemp(prefix="capsnet-serve-")
    atexit.register(rmtree, own, ignore_errors=True)
    return Path(own) / "model.onnx"
