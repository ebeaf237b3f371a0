"""What one run of an experiment leaves behind: a JSON file that holds all that tables and figures are made of."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Bool
from numpy.typing import NDArray

from capsnet._support.errors import CapsnetError
from capsnet._support.files import read_json, write_json
from capsnet.inference.evaluation import Evaluation, wilson_interval


@dataclass(frozen=True)
class PackedArray:
    """An array as JSON can hold it."""

    dtype: str
    shape: tuple[int, ...]
    zlib_base64: str

    @classmethod
    def of(cls, array: NDArray[Any]) -> Self:
        """Pack an array."""
        little_endian = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False))
        packed = base64.b64encode(zlib.compress(little_endian.tobytes(), 9)).decode()
        return cls(array.dtype.name, tuple(array.shape), packed)

    def array(self) -> NDArray[Any]:
        """The array again."""
        raw = zlib.decompress(base64.b64decode(self.zlib_base64))
        return np.frombuffer(raw, np.dtype(self.dtype).newbyteorder("<")).reshape(self.shape)


@dataclass(frozen=True)
class Answers:
    """Answers to one test set: how many were wrong, and which; and which examples belong together."""

    n: int
    errors: int
    interval_95: tuple[float, float]
    """Wilson's, for this one model and independent examples."""
    wrong_bits: str
    """One bit per example in the set's order, 1 where the answer is wrong: zlib, base64."""
    groups: PackedArray | None = None
    """What each example shows, as a number, where several show the same thing."""

    @classmethod
    def of(cls, evaluation: Evaluation, groups: NDArray[Any] | None = None) -> Self:
        """Keep an evaluation's counts, its per-image errors, and each image's group (n,), if there are groups.

        Raises:
            ValueError: not one number from 0 on for each example.
        """
        wrong = evaluation.wrong
        bits = base64.b64encode(zlib.compress(np.packbits(wrong.numpy()).tobytes(), 9)).decode()
        errors = int(wrong.sum())
        packed = None if groups is None else PackedArray.of(_small(groups, len(wrong)))
        return cls(len(wrong), errors, wilson_interval(errors, len(wrong)), bits, packed)

    @property
    def error(self) -> float:
        """Share of wrong answers, 0…1."""
        return self.errors / self.n

    def group_numbers(self) -> NDArray[Any] | None:
        """Each example's group (n,); None where nothing is known of groups."""
        return None if self.groups is None else self.groups.array()

    def wrong(self) -> Bool[torch.Tensor, " n"]:
        """Which answers were wrong."""
        bits = np.frombuffer(zlib.decompress(base64.b64decode(self.wrong_bits)), np.uint8)
        return torch.from_numpy(np.unpackbits(bits, count=self.n).astype(bool))


def _small(groups: NDArray[Any], n: int) -> NDArray[Any]:
    """The same numbers in as few bytes as they need."""
    if groups.shape != (n,) or groups.dtype.kind not in "iu" or (n and groups.min() < 0):
        raise ValueError(
            f"groups are {groups.dtype} of shape {groups.shape}; they must be integers from 0 on, one for each of "
            f"{n} examples"
        )
    return groups.astype(np.min_scalar_type(groups.max(initial=0)))


@dataclass(frozen=True, eq=False)
class Findings:
    """What an experiment measures on a trained model.

    Raises:
        ValueError: groups of a test set that is not there.
    """

    tests: Mapping[str, Evaluation] = field(default_factory=dict)
    """Test sets, by name."""
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    """Single numbers, by name; None where something could not be measured."""
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """What figures are drawn from."""
    groups: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """Of the test sets, by name, in which several examples show the same thing: its number, for each example."""

    def __post_init__(self) -> None:
        if strangers := self.groups.keys() - self.tests.keys():
            raise ValueError(f"groups of {', '.join(sorted(strangers))}, and no such test set")


@dataclass(frozen=True)
class Record:
    """One run: what was asked, what came out, where it ran."""

    experiment: str
    variant: str
    scale: str
    seed: int
    settings: str
    """Fingerprint of model, training and data; a run of other settings has another."""
    about: str
    control: bool
    data: str
    provenance: str
    architecture: str
    model: dict[str, Any]
    training: dict[str, Any]
    parameters: int
    multiply_adds: int
    steps: int
    seconds: float
    device: str
    tests: dict[str, Answers]
    metrics: dict[str, float | None]
    arrays: dict[str, PackedArray]
    code: str
    """SHA-256 of the package's Python files (first 12 digits), beside the commit in `environment`."""
    environment: dict[str, Any]
    format: int = 1

    def value(self, measure: str) -> float | None:
        """A number by name: a test set's error, or a metric; None where this run has no such number."""
        if measure in self.tests:
            return self.tests[measure].error
        return self.metrics.get(measure)

    def array(self, name: str) -> NDArray[Any]:
        """An array by name."""
        return self.arrays[name].array()

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        write_json(path, asdict(self))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file.

        Raises:
            CapsnetError: it is missing, no JSON, or no record of a run.
        """
        from pydantic import TypeAdapter, ValidationError

        try:
            return TypeAdapter(cls).validate_json(json.dumps(read_json(path)), strict=True)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(str(part) for part in first["loc"])
            raise CapsnetError(
                f"{path} is no result of capsnet reproduce ({place}: {first['msg']}); remove it and run again"
            ) from error


#: What the names of comparisons begin with: their records are no experiment's.
COMPARISON = "compare-"


def record_path(out: Path, experiment: str, variant: str, scale: str, seed: int) -> Path:
    """Where a run's record lies under the results folder."""
    return out / experiment / f"{variant}-{scale}-s{seed}.json"


def read_records(results: Path) -> list[Record]:
    """All records of experiments in a results folder, ordered by experiment, scale, variant and seed.

    Raises:
        CapsnetError: there is no such folder, none in it, or a broken one.
    """
    if not results.is_dir():
        raise CapsnetError(f"no results at {results}; `capsnet reproduce NAME --out {results}` makes some")
    folders = sorted(path for path in results.iterdir() if path.is_dir())
    compared = [folder for folder in folders if folder.name.startswith(COMPARISON)]
    kept = [path for folder in folders if folder not in compared for path in sorted(folder.glob("*.json"))]
    records = [Record.read(path) for path in kept]
    if not records and compared:
        raise CapsnetError(
            f"{results} holds results of `capsnet compare` only; it wrote a page of them into {compared[0]}"
        )
    if not records:
        raise CapsnetError(
            f"{results} holds no results yet; `capsnet reproduce NAME --out {results}` makes some"
        )
    return sorted(records, key=lambda record: (record.experiment, record.scale, record.variant, record.seed))
