"""Store one run of an experiment as JSON: everything that tables and figures need."""

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
    """Hold an array in a form that JSON can store."""

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
        """Unpack the array."""
        raw = zlib.decompress(base64.b64decode(self.zlib_base64))
        return np.frombuffer(raw, np.dtype(self.dtype).newbyteorder("<")).reshape(self.shape)


@dataclass(frozen=True)
class Answers:
    """Hold the errors on one test set, and the group id of each example."""

    n: int
    errors: int
    interval_95: tuple[float, float]
    """Wilson's interval, for this one model and independent examples."""
    wrong_bits: str
    """One bit per example in the set's order, 1 for a wrong answer; zlib, base64."""
    groups: PackedArray | None = None
    """Group id of each example, for test sets with repeated objects."""

    @classmethod
    def of(cls, evaluation: Evaluation, groups: NDArray[Any] | None = None) -> Self:
        """Keep an evaluation's counts, errors per image, and group ids (n,).

        Raises:
            ValueError: the group ids are not one non-negative integer per example.
        """
        wrong = evaluation.wrong
        bits = base64.b64encode(zlib.compress(np.packbits(wrong.numpy()).tobytes(), 9)).decode()
        errors = int(wrong.sum())
        packed = None if groups is None else PackedArray.of(_small(groups, len(wrong)))
        return cls(len(wrong), errors, wilson_interval(errors, len(wrong)), bits, packed)

    @property
    def error(self) -> float:
        """Return the share of wrong answers, from 0 to 1."""
        return self.errors / self.n

    def group_numbers(self) -> NDArray[Any] | None:
        """Return the group id of each example (n,), or None without groups."""
        return None if self.groups is None else self.groups.array()

    def wrong(self) -> Bool[torch.Tensor, " n"]:
        """Return which answers were wrong."""
        bits = np.frombuffer(zlib.decompress(base64.b64decode(self.wrong_bits)), np.uint8)
        return torch.from_numpy(np.unpackbits(bits, count=self.n).astype(bool))


def _small(groups: NDArray[Any], n: int) -> NDArray[Any]:
    """Convert group ids to the smallest integer type that can hold them."""
    if groups.shape != (n,) or groups.dtype.kind not in "iu" or (n and groups.min() < 0):
        raise ValueError(
            f"groups are {groups.dtype} of shape {groups.shape}; they must be non-negative integers, one for each of "
            f"{n} examples"
        )
    return groups.astype(np.min_scalar_type(groups.max(initial=0)))


@dataclass(frozen=True, eq=False)
class Findings:
    """Hold what an experiment measured on a trained model.

    Raises:
        ValueError: `groups` names a test set that is not in `tests`.
    """

    tests: Mapping[str, Evaluation] = field(default_factory=dict)
    """Evaluations on test sets, by name."""
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    """Single numbers, by name; None for one that could not be measured."""
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """Arrays for the figures, by name."""
    groups: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """Group id of each example, by test set, for test sets with repeated objects."""

    def __post_init__(self) -> None:
        if strangers := self.groups.keys() - self.tests.keys():
            raise ValueError(
                f"groups are given for {', '.join(sorted(strangers))}, but no such test set exists"
            )


#: Name of the array of test errors during training, if there were any: (step, error) of each evaluation.
ON_THE_WAY = "errors on the way"


@dataclass(frozen=True)
class Record:
    """Hold one run: its settings, its results and its machine."""

    experiment: str
    variant: str
    scale: str
    seed: int
    settings: str
    """Fingerprint of model, training and data."""
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
    rate_errors: dict[str, float | None] = field(default_factory=dict)
    """Error on held-out training images at each learning rate that was tried, None where training diverged. Empty if
    the rate was not chosen."""
    format: int = 1

    def value(self, measure: str) -> float | None:
        """Return a test set's error or a metric, by name; None if missing."""
        if measure in self.tests:
            return self.tests[measure].error
        return self.metrics.get(measure)

    def array(self, name: str) -> NDArray[Any]:
        """Return an array by name."""
        return self.arrays[name].array()

    def write(self, path: Path) -> None:
        """Write the file atomically."""
        write_json(path, asdict(self))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file.

        Raises:
            CapsnetError: the file is missing, is not JSON, or is not a record of a run.
        """
        from pydantic import TypeAdapter, ValidationError

        try:
            return TypeAdapter(cls).validate_json(json.dumps(read_json(path)), strict=True)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(str(part) for part in first["loc"])
            raise CapsnetError(
                f"{path} is not a result of capsnet reproduce ({place}: {first['msg']}); remove it and run again"
            ) from error


#: Prefix of the folders of comparisons, whose records belong to no experiment.
COMPARISON = "compare-"


def record_path(out: Path, experiment: str, variant: str, scale: str, seed: int) -> Path:
    """Return the path of a run's record in the results folder."""
    return out / experiment / f"{variant}-{scale}-s{seed}.json"


def read_records(results: Path) -> list[Record]:
    """Read all experiment records in a results folder, in order.

    Raises:
        CapsnetError: the folder does not exist, has no records, or has a damaged one.
    """
    if not results.is_dir():
        raise CapsnetError(
            f"no results at {results}; create some with: capsnet reproduce NAME --out {results}"
        )
    folders = sorted(path for path in results.iterdir() if path.is_dir())
    compared = [folder for folder in folders if folder.name.startswith(COMPARISON)]
    kept = [path for folder in folders if folder not in compared for path in sorted(folder.glob("*.json"))]
    records = [Record.read(path) for path in kept]
    if not records and compared:
        raise CapsnetError(f"{results} has only results of `capsnet compare`; their page is in {compared[0]}")
    if not records:
        raise CapsnetError(
            f"{results} has no results yet; create some with: capsnet reproduce NAME --out {results}"
        )
    return sorted(records, key=lambda record: (record.experiment, record.scale, record.variant, record.seed))
