"""A run is a folder: what was asked, where it ran, how it went, the model, and how to go on.

config.json         the model and how it is trained
environment.json    versions, machine, threads
metrics.jsonl       one line per few steps, one per evaluation
state.safetensors   weights, optimizer, random state, position: one file, one checksum (until it ends)
model.safetensors   the last step's weights
result.json         test error with its interval
report/             the page and its figures
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor

from capsnet.config import TrainConfig
from capsnet.errors import CapsnetError
from capsnet.files import read_json, write_json, write_text
from capsnet.models.base import Classifier, parse_config, read_model_config
from capsnet.provenance import environment
from capsnet.weights import read_weights, save_weights


class Run(AbstractContextManager["Run"]):
    """A run folder, held by one process at a time.

    Use `create` or `reopen`, in a with statement.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock: Any = None

    @classmethod
    def create(
        cls, folder: Path, model: Classifier, config: TrainConfig, classes: Sequence[str] | None = None
    ) -> Self:
        """Start a run in a new or empty folder.

        Args:
            folder: made if it is not there.
            model: what is trained.
            config: how.
            classes: the classes' names, for whoever uses the model later.

        Raises:
            CapsnetError: the folder holds something already, or cannot be written.
        """
        if folder.is_dir() and any(entry.name != ".lock" for entry in folder.iterdir()):
            raise CapsnetError(
                f"{folder} is not empty; choose another --out, or continue it with --resume {folder}"
            )
        if folder.exists() and not folder.is_dir():
            raise CapsnetError(f"{folder} is a file; choose another --out")
        run = cls(folder)
        about = {**model.describe(), "training": asdict(config)}
        if classes is not None:
            about["classes"] = list(classes)
        write_json(folder / "config.json", about)
        write_json(folder / "environment.json", environment())
        return run

    @classmethod
    def reopen(cls, folder: Path) -> Self:
        """Take up an existing run.

        Raises:
            CapsnetError: there is none.
        """
        if not folder.is_dir():
            raise CapsnetError(f"no run at {folder}; `capsnet train --out {folder}` starts one")
        return cls(folder)

    def __enter__(self) -> Self:
        from filelock import FileLock, Timeout

        lock = FileLock(self.folder / ".lock")
        try:
            lock.acquire(blocking=False)
        except Timeout:
            raise CapsnetError(
                f"{self.folder} is in use by another process; wait for it, or choose another --out"
            ) from None
        except OSError as error:
            raise CapsnetError(
                f"cannot write in {self.folder}: {error.strerror}; choose another --out"
            ) from error
        self._lock = lock
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    # What was asked

    def description(self) -> dict[str, Any]:
        """config.json, its form checked."""
        return read_model_config(self.folder)

    def training(self) -> TrainConfig:
        """How the run is trained."""
        values = self.description().get("training")
        if not isinstance(values, dict):
            raise CapsnetError(f"{self.folder} holds a saved model and no run: config.json has no training")
        return parse_config(TrainConfig, values, self.folder / "config.json")

    # How it went

    @property
    def metrics_path(self) -> Path:
        """metrics.jsonl."""
        return self.folder / "metrics.jsonl"

    def append_metrics(self, values: Mapping[str, Any]) -> None:
        """Add one line."""
        try:
            with self.metrics_path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(values, allow_nan=False) + "\n")
        except OSError as error:
            raise CapsnetError(f"cannot write {self.metrics_path}: {error.strerror}") from error

    def metrics(self) -> list[dict[str, Any]]:
        """All lines. A last line cut short by a crash is left out."""
        if not self.metrics_path.exists():
            return []
        lines = []
        for line in self.metrics_path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                lines.append(json.loads(line))
            except json.JSONDecodeError:
                continue
        return [line for line in lines if isinstance(line, dict) and isinstance(line.get("step"), int)]

    def forget_metrics_after(self, step: int) -> None:
        """Drop the lines that a resumed training will write again."""
        kept = [json.dumps(line) + "\n" for line in self.metrics() if line["step"] <= step]
        write_text(self.metrics_path, "".join(kept))

    # How to go on

    @property
    def state_path(self) -> Path:
        """state.safetensors."""
        return self.folder / "state.safetensors"

    def save_state(self, tensors: Mapping[str, Tensor], position: Mapping[str, Any]) -> None:
        """Save all that the next step depends on as one file; the one before stays until this is complete."""
        whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        about = {"position": json.dumps(position), "checksum": checksum(whole)}
        save_weights(whole, self.state_path, about)

    def load_state(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The last completed save, or None if there was none yet.

        Raises:
            CapsnetError: the file is damaged.
        """
        if not self.state_path.exists():
            return None
        tensors, about = read_weights(self.state_path)
        if about.get("checksum") != checksum(tensors):
            raise CapsnetError(f"{self.state_path} is damaged (its checksum differs); start the run again")
        return tensors, json.loads(about["position"])

    def finish(self, model: Classifier, result: Mapping[str, Any]) -> None:
        """Write the model, then the result; after that the state is no longer needed."""
        save_weights(model.state_dict(), self.folder / "model.safetensors")
        write_json(self.folder / "result.json", result)
        self.state_path.unlink(missing_ok=True)

    def result(self) -> dict[str, Any] | None:
        """result.json, or None while the run has not ended."""
        path = self.folder / "result.json"
        if not path.exists():
            return None
        result = read_json(path)
        if not isinstance(result, dict):
            raise CapsnetError(f"{path} is not a result; train again")
        return result


def checksum(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names and bytes."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
