"""A file of answers that is taken up where it was left, after a crash too."""

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
from capsnet.inference.prediction import PLAIN, Answer, PredictOptions


class AnswerFile(AbstractContextManager["AnswerFile"]):
    """JSON Lines, one answer each, in the order of the files; beside it FILE.about.json: of what model and inputs.

    Use in a with statement; one process at a time.

    Args:
        path: of the answers.
        model: the folder of the saved model.
        inputs: files and folders that were asked about.
        batch_size: answers are kept by whole batches, so that what is computed again has the same bits.
        options: how the files are read, and how much is told of each.
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
        """Answers that were there already."""
        self._batch_size = batch_size
        self._about = {
            "model": hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest(),
            "inputs": [str(path.resolve()) for path in inputs],
            "batch_size": batch_size,
            **{option: True for option in ("invert", "all_scores") if getattr(options, option)},
        }
        self._lock: Any = None
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        refuse_folder(self.path)
        about = self.path.with_name(self.path.name + ".about.json")
        lock_file = self.path.with_name(f".{self.path.name}.lock")
        self._lock = hold(lock_file, f"{shown(self.path)} is being written by another process; wait for it")
        try:
            if not self.path.exists():  # not begun, or deleted to begin anew
                write_json(about, self._about)
            if not about.exists() or read_json(about) != self._about:
                raise CapsnetError(
                    f"{shown(self.path)} holds something else, or answers of another model, to other inputs or with "
                    "other options; delete it, or choose another --out"
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

    def take_up(self, files: Iterator[Path]) -> None:
        """Keep the whole batches that are there, and advance `files` past what they answer.

        Raises:
            CapsnetError: they are not answers to these files.
        """
        assert self._file is not None
        whole = sum(line.endswith(b"\n") for line in self._file) // self._batch_size * self._batch_size
        self._file.seek(0)
        for _ in range(whole):
            line, asked = self._file.readline(), next(files, None)
            if asked is None or _name(line) != shown(asked):
                raise CapsnetError(
                    f"{shown(self.path)} has answers to other files than are there now; delete it to begin anew"
                )
        self._file.truncate(self._file.tell())
        self.kept = whole

    def append(self, answers: Iterable[Answer]) -> int:
        """Write answers as they come; on the disk after every batch. Returns how many."""
        assert self._file is not None
        number = 0
        lines: list[bytes] = []
        for number, answer in enumerate(answers, 1):
            lines.append(json.dumps(answer.as_dict()).encode() + b"\n")
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
