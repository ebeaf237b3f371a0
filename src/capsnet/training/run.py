"""The folder of a run: configuration, metrics, checkpoints, model and result.

config.json         the model's configuration and the training options
environment.json    versions, machine, threads
metrics.jsonl       one line every few steps, and one per evaluation
nonfinite.jsonl     one line per step with a NaN or infinite loss or gradient, if there are any
state*.safetensors  checkpoints, removed at the end of the training; see capsnet.training.checkpoint
model.safetensors   the weights after the last step, or their moving average with `train.average`
confidence.json     calibrated probabilities and typical reconstruction errors; see capsnet.inference.saved_confidence
result.json         test error with its interval
report/             the report page and its figures
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict
from pathlib import Path
from shutil import rmtree
from types import TracebackType
from typing import Any, NoReturn, Self

from torch import Tensor

from capsnet._support.environment import environment
from capsnet._support.errors import CapsnetError, shown
from capsnet._support.files import (
    cannot_write,
    hold,
    is_leftover,
    parse_json,
    read_json,
    write_json,
    write_text,
)
from capsnet._support.notebook import curve, table, text
from capsnet._support.validation import parse_config
from capsnet._support.weights import save_weights
from capsnet.inference.saved_confidence import Confidence
from capsnet.models.base import Classifier
from capsnet.models.saved import SavedModel
from capsnet.training.checkpoint import Checkpoint, load_checkpoint, remove_checkpoints, save_checkpoint
from capsnet.training.config import TrainConfig

#: Upper limit of characters in a line of metrics; capsnet writes about two hundred.
MAX_LINE = 2**16


class Run(AbstractContextManager["Run"]):
    """A run folder, locked by one process at a time.

    Use `create` or `reopen`, in a with statement.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self._lock: Any = None
        self._newest_is_damaged = False

    @classmethod
    def create(
        cls,
        folder: Path,
        model: Classifier,
        config: TrainConfig,
    ) -> Self:
        """Start a run in a new or empty folder.

        Args:
            folder: created if it does not exist.
            model: the model to train.
            config: training options.

        Raises:
            CapsnetError: the folder is not empty, or cannot be written.
        """
        if folder.exists() and not folder.is_dir():
            raise CapsnetError(f"{folder} is a file; choose another --out")
        run = cls(folder)
        if not run._is_held_or_new():
            run._refuse_to_start()
        run._hold()
        if not run._is_new():  # another process created a run here meanwhile
            run._lock.release()
            run._refuse_to_start()
        about = {**model.describe(), "training": asdict(config)}
        write_json(folder / "environment.json", environment())
        write_json(
            folder / "config.json", about
        )  # last, since this file makes the folder a run that can be resumed
        return run

    @classmethod
    def reopen(cls, folder: Path) -> Self:
        """Open an existing run.

        Raises:
            CapsnetError: the folder holds no run.
        """
        if not (folder / "config.json").is_file():
            raise CapsnetError(
                f"no run at {shown(folder)}: it has no config.json; check the path, or start one with: "
                f"capsnet train --out {shown(folder)}"
            )
        return cls(folder)

    def clear(self) -> None:
        """Remove everything that the run has written.

        Raises:
            InUse: another process trains here.
            CannotWrite: the folder is not writable.
        """
        if not self.folder.is_dir():
            return
        with self:
            for entry in list(self.folder.iterdir()):
                if entry.name == ".lock":
                    continue
                try:
                    rmtree(entry) if entry.is_dir() else entry.unlink()
                except OSError as error:
                    raise cannot_write(entry, error) from error

    def __enter__(self) -> Self:
        if self._lock is None:
            self._hold()
        self._tidy()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()
        self._lock = None

    def _hold(self) -> None:
        busy = f"{self.folder} is in use by another process; wait for it, or choose another --out"
        self._lock = hold(self.folder / ".lock", busy)

    def _is_new(self) -> bool:
        """Return whether the folder is empty, or has only files of a start that crashed."""
        if not self.folder.is_dir():
            return True
        ours = {".lock", "environment.json"}
        return all(entry.name in ours or is_leftover(entry) for entry in self.folder.iterdir())

    def _is_held_or_new(self) -> bool:
        return (self.folder / ".lock").exists() or self._is_new()

    def _refuse_to_start(self) -> NoReturn:
        is_run = (self.folder / "config.json").is_file()
        advice = f", or continue it with --resume {shown(self.folder)}" if is_run else ""
        raise CapsnetError(f"{shown(self.folder)} is not empty; choose another --out{advice}")

    def _tidy(self) -> None:
        """Remove temporary files of a killed process, and a finished run's checkpoints."""
        with suppress(OSError):  # such files do no harm
            for entry in list(self.folder.iterdir()):
                if is_leftover(entry):
                    entry.unlink()
            if (self.folder / "result.json").exists():
                remove_checkpoints(self.folder)

    # Configuration

    def saved(self) -> SavedModel:
        """Return the contents of config.json."""
        return SavedModel.open(self.folder)

    def training(self) -> TrainConfig:
        """Return the training options."""
        saved = self.saved()
        if not saved.training:
            raise CapsnetError(
                f"{self.folder} holds a saved model, not a run: config.json has no training section"
            )
        return parse_config(TrainConfig, dict(saved.training), saved.path)

    def change_training(self, config: TrainConfig) -> None:
        """Record other training options for the rest of the run."""
        path = self.folder / "config.json"
        write_json(path, {**read_json(path), "training": asdict(config)})

    # Metrics

    @property
    def metrics_path(self) -> Path:
        """Return the path of metrics.jsonl."""
        return self.folder / "metrics.jsonl"

    @property
    def nonfinite_path(self) -> Path:
        """Return the path of nonfinite.jsonl."""
        return self.folder / "nonfinite.jsonl"

    def append_metrics(self, values: Mapping[str, Any]) -> None:
        """Add one line to metrics.jsonl. `step` must be among the values.

        Raises:
            CannotWrite: the disk is full, or the folder is not writable.
        """
        _append_line(self.metrics_path, values)

    def append_nonfinite(self, values: Mapping[str, Any]) -> None:
        """Add one line to nonfinite.jsonl, as `append_metrics`."""
        _append_line(self.nonfinite_path, values)

    def metrics(self) -> list[dict[str, Any]]:
        """Return all lines of metrics.jsonl, without a last line truncated by a crash."""
        return _lines(self.metrics_path)

    def nonfinite(self) -> list[dict[str, Any]]:
        """Return all lines of nonfinite.jsonl; empty if every step was finite."""
        return _lines(self.nonfinite_path)

    def forget_lines_after(self, step: int) -> None:
        """Remove the lines that a resumed training will write again."""
        for path in (self.metrics_path, self.nonfinite_path):
            if path.exists():
                kept = [json.dumps(line) + "\n" for line in _lines(path) if line["step"] <= step]
                write_text(path, "".join(kept))

    # Checkpoints and the result

    def save_checkpoint(self, tensors: Mapping[str, Tensor], position: Mapping[str, Any]) -> None:
        """Write a new checkpoint and keep the previous one.

        Raises:
            CannotWrite: the disk is full, or the folder is not writable. Earlier checkpoints are unchanged.
        """
        for path in (self.metrics_path, self.nonfinite_path):
            if (
                path.exists()
            ):  # lines before the checkpoint must be on disk: a resumed run does not write them again
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        save_checkpoint(self.folder, tensors, position, keep_newest=not self._newest_is_damaged)
        self._newest_is_damaged = False

    def load_checkpoint(self) -> Checkpoint | None:
        """Read the newest checkpoint, or the one before if the newest is damaged.

        Returns:
            The checkpoint; None if there is none yet.

        Raises:
            CapsnetError: there are checkpoints, but none can be read.
        """
        state = load_checkpoint(self.folder)
        self._newest_is_damaged = state is not None and bool(state.notice)
        return state

    def finish(
        self, model: Classifier, result: Mapping[str, Any], confidence: Confidence | None = None
    ) -> None:
        """Write the model, its confidence if given, and last the result; then remove the checkpoints.

        Raises:
            CannotWrite: the disk is full, or the folder is not writable. The checkpoints are still there.
        """
        save_weights(model.state_dict(), self.folder / "model.safetensors")
        if confidence is not None:
            confidence.save(self.folder)
        write_json(self.folder / "result.json", result)
        remove_checkpoints(self.folder)

    def _repr_html_(self) -> str:
        """Return the run as a table for notebooks."""
        saved, result, lines = self.saved(), self.result(), self.metrics()
        rows = [("model", text(saved.architecture)), ("data", text(saved.data))]
        if result is None:
            rows.append(("state", f"not finished, step {max((line['step'] for line in lines), default=0):,}"))
        else:
            low, high = result.get("interval_95", (float("nan"), float("nan")))
            error = f"{result.get('test_error', float('nan')):.2%} ({low:.2%} to {high:.2%}, n = {result.get('n')})"
            rows += [("test error", text(error)), ("steps", text(f"{result.get('steps', 0):,}"))]
        for name, key in (("loss", "loss"), ("test error during training", "test_error")):
            values = [line[key] for line in lines if isinstance(line.get(key), int | float)]
            if drawn := curve(values):
                rows.append((name, f"{drawn} {values[0]:.3g} → {values[-1]:.3g}"))
        return table(f"run {self.folder}", rows)

    def finished(self) -> dict[str, Any]:
        """Return the contents of result.json.

        Raises:
            CapsnetError: the run is not finished.
        """
        found = self.result()
        if found is None:
            place = shown(self.folder)
            raise CapsnetError(f"{place} is not finished; resume it with: capsnet train --resume {place}")
        return found

    def result(self) -> dict[str, Any] | None:
        """Return the contents of result.json; None if the run is not finished."""
        path = self.folder / "result.json"
        if not path.exists():
            return None
        result = read_json(path)
        if not isinstance(result, dict) or not isinstance(result.get("test_error", 0.0), int | float):
            raise CapsnetError(f"{path} does not hold a result; train again")
        return result


def _append_line(path: Path, values: Mapping[str, Any]) -> None:
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values, allow_nan=False) + "\n")
    except OSError as error:
        raise cannot_write(path, error) from error


def _lines(path: Path) -> list[dict[str, Any]]:
    """Return the valid lines: JSON objects with a step."""
    if not path.exists():
        return []
    found = []
    try:
        if not path.is_file():  # reading a pipe would block
            raise CapsnetError(f"{path} is not a file; move it away")
        with path.open(encoding="utf-8", errors="replace") as file:
            while line := file.readline(MAX_LINE):
                try:
                    values = parse_json(line, finite=False)
                except ValueError:
                    continue
                if isinstance(values, dict) and type(step := values.get("step")) is int and step >= 0:
                    found.append(values)
    except OSError as error:
        raise CapsnetError(f"cannot read {path}: {error.strerror}; check its permissions") from error
    return found
