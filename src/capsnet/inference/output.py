"""Write predictions to a resumable file; a crash loses at most one batch."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from capsnet._support.errors import CapsnetError, shown
from capsnet._support.files import cannot_write, hold, read_json, refuse_folder, write_json
from capsnet.inference.prediction import PLAIN, Prediction, PredictOptions


class PredictionFile(AbstractContextManager["PredictionFile"]):
    """A JSON Lines file with one prediction per line, in the order of the input files.

    FILE.about.json beside it records model, inputs and options. Use in a with statement; one process at a time.

    Args:
        path: the file to write.
        model: the folder of the saved model.
        inputs: the files and folders to classify.
        batch_size: resuming keeps whole batches, so that recomputed predictions have the same bits.
        options: preprocessing, and what to report.
    """

    def __init__(
        self,
        path: Path,
        model: Path,
        inputs: Iterable[Path],
        batch_size: int,
        options: PredictOptions = PLAIN,
    ) -> None:
        self.path = path
        self.kept = 0
        """Number of predictions that were in the file already."""
        self._batch_size = batch_size
        self._about = {
            "model": hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest(),
            # as shown, because names that are not UTF-8 cannot be read back from JSON
            "inputs": [shown(path.resolve()) for path in inputs],
            "batch_size": batch_size,
            **{option: True for option in ("invert", "all_scores") if getattr(options, option)},
            **({} if options.refuse_below is None else {"refuse_below": options.refuse_below}),
        }
        self._lock: Any = None
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        refuse_folder(self.path)
        about = self.path.with_name(self.path.name + ".about.json")
        lock_file = self.path.with_name(f".{self.path.name}.lock")
        self._lock = hold(lock_file, f"{shown(self.path)} is being written by another process; wait for it")
        try:
            if not self.path.exists():  # new, or deleted by the user to start again
                write_json(about, self._about)
            if not about.exists() or read_json(about) != self._about:
                raise CapsnetError(
                    f"{shown(self.path)} holds other data, or predictions of another model, for other inputs or "
                    "with other options; delete it, or choose another --out"
                )
            self._file = self.path.open("r+b" if self.path.exists() else "x+b")
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._file is not None
        self._file.close()
        self._lock.release()

    def resume(self, files: Iterator[Path]) -> None:
        """Keep the whole batches in the file, and advance `files` past them.

        Raises:
            CapsnetError: the file holds predictions for other files.
        """
        assert self._file is not None
        whole = sum(line.endswith(b"\n") for line in self._file) // self._batch_size * self._batch_size
        self._file.seek(0)
        for _ in range(whole):
            line, asked = self._file.readline(), next(files, None)
            if asked is None or _name(line) != shown(asked):
                raise CapsnetError(
                    f"{shown(self.path)} has predictions for other files than the inputs; delete it to start again"
                )
        self._file.truncate(self._file.tell())
        self.kept = whole

    def append(self, predictions: Iterable[Prediction]) -> int:
        """Write predictions, flushed to disk after every batch. Return their number."""
        assert self._file is not None
        number = 0
        lines: list[bytes] = []
        for number, prediction in enumerate(predictions, 1):
            lines.append(json.dumps(prediction.as_dict()).encode() + b"\n")
            if number % self._batch_size == 0:
                self._write(lines)
                lines.clear()
        self._write(lines)
        return number

    def _write(self, lines: list[bytes]) -> None:
        assert self._file is not None
        try:
            self._file.write(b"".join(lines))
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise cannot_write(self.path, error) from error


def _name(line: bytes) -> str | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    name = found.get("name") if isinstance(found, dict) else None
    return name if isinstance(name, str) else None
