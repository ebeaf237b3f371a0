"""Measure the test error, with the number of examples and a confidence interval."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import sqrt
from typing import Any, NamedTuple, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from capsnet._support.errors import CapsnetError, NotFinite
from capsnet.data.dataset import Batch, Dataset, Source
from capsnet.distributed import WorkerGroup
from capsnet.models.base import Classifier

Portion = TypeVar("Portion")

#: Examples per batch.
BATCH_SIZE = 500


def wilson_interval(errors: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Return Wilson's score interval for a proportion (95 % by default).

    It is valid for few errors too, and never below 0.

    Raises:
        ValueError: n < 1, or errors is not in 0…n.
    """
    if n < 1 or not 0 <= errors <= n:
        raise ValueError(f"wilson_interval: {errors} errors of {n}")
    p = errors / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


class Measured(ABC):
    """Errors among n test examples.

    An example is right only if all its classes are found, in any order.
    """

    @property
    @abstractmethod
    def n(self) -> int:
        """Return the number of examples."""

    @property
    @abstractmethod
    def errors(self) -> int:
        """Return the number of wrong examples."""

    @property
    @abstractmethod
    def classes_each(self) -> int:
        """Return the number of classes per example."""

    @property
    def title(self) -> str:
        """Return the name of the error: "pair error" if each example has two classes."""
        return "pair error" if self.classes_each == 2 else "test error"

    @property
    def error(self) -> float:
        """Return the share of wrong examples, 0…1."""
        return self.errors / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """Return Wilson's 95 % interval of the error."""
        return wilson_interval(self.errors, self.n)

    def summary(self) -> dict[str, Any]:
        """Return the values for result.json."""
        low, high = self.interval
        return {
            "test_error": self.error,
            "interval_95": [low, high],
            "interval_method": "Wilson",
            "errors": self.errors,
            "n": self.n,
        }

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.error:.2%} ({self.errors} of {self.n}; 95 % interval {low:.2%} to {high:.2%})"


@dataclass(frozen=True, eq=False)
class Evaluation(Measured):
    """Scores and labels of a whole test set."""

    scores: Float[Tensor, "n classes"]
    labels: Int[Tensor, "n count"]

    @property
    def predictions(self) -> Int[Tensor, "n count"]:
        """Return as many classes as each example has, the highest score first."""
        return self.scores.topk(self.labels.shape[1], dim=1).indices

    @property
    def wrong(self) -> Tensor:
        """Return which examples are wrong, bool (n,)."""
        return (self.predictions.sort(dim=1).values != self.labels.sort(dim=1).values).any(dim=1)

    @property
    def n(self) -> int:
        """Return the number of examples."""
        return len(self.labels)

    @property
    def errors(self) -> int:
        """Return the number of wrong examples."""
        return int(self.wrong.sum())

    @property
    def classes_each(self) -> int:
        """Return the number of classes per example."""
        return self.labels.shape[1]


class Count(Measured):
    """The number of errors, without the scores."""

    def __init__(self, errors: int, n: int, classes_each: int = 1) -> None:
        self._errors, self._n, self._classes_each = errors, n, classes_each

    @property
    def n(self) -> int:
        """Return the number of examples."""
        return self._n

    @property
    def errors(self) -> int:
        """Return the number of wrong examples."""
        return self._errors

    @property
    def classes_each(self) -> int:
        """Return the number of classes per example."""
        return self._classes_each


def evaluate(model: Classifier, source: Source | Dataset, batch_size: int = BATCH_SIZE) -> Evaluation:
    """Measure a model on every example of a test set, without augmentation.

    The model's training mode is restored afterwards.

    Args:
        model: on the device to use.
        source: examples, or a data set; its test set is used.
        batch_size: images per batch.

    Raises:
        ValueError: the source is empty, or `batch_size` is below 1.
        NotFinite: a score is NaN or infinite.
    """
    device = next(model.parameters()).device
    if isinstance(source, Dataset):
        source = source.test.to(device)
    if not len(source) or batch_size < 1:
        raise ValueError(f"evaluate: {len(source)} examples in batches of {batch_size}")
    ranges = row_ranges(len(source), batch_size)
    with _answering(model):
        parts = [_answer(model, batch_of(source, rows, device)) for rows in ranges]
    whole = Evaluation(torch.cat([part.scores for part in parts]), torch.cat([part.labels for part in parts]))
    _refuse_nonfinite(_nonfinite(whole), whole.n)
    return whole


def count_errors(
    model: Classifier, portions: Iterator[Portion], read: Callable[[Portion], Batch], workers: WorkerGroup
) -> Count | None:
    """Count errors among any number of examples, in constant memory.

    The model's training mode is restored afterwards.

    Args:
        model: on the device to use.
        portions: the work, one batch each, for example lists of files. Only rank 0 reads it.
        read: makes a batch from a portion.
        workers: processes that share the work; all of them must make this call.

    Returns:
        The count in rank 0; None in the other ranks.

    Raises:
        CapsnetError: raised by `read` in any rank; the first error in the order of the portions.
        NotFinite: a score is NaN or infinite.
    """

    def count(portion: Portion) -> _Counted:
        try:
            batch = read(portion)
        except CapsnetError as error:  # reported by rank 0, in the order of the files
            return _Counted(fault=str(error))
        part = _answer(model, batch)
        return _Counted(part.errors, part.n, _nonfinite(part), part.classes_each)

    errors = n = nonfinite = 0
    classes_each = 1
    with _answering(model):
        for counted in workers.map(count, portions):
            if counted.fault:
                raise CapsnetError(counted.fault)
            errors, n, nonfinite = errors + counted.errors, n + counted.n, nonfinite + counted.nonfinite
            classes_each = counted.classes_each
    _refuse_nonfinite(nonfinite, n)
    return Count(errors, n, classes_each) if workers.is_main else None


def row_ranges(examples: int, batch_size: int = BATCH_SIZE) -> Iterator[range]:
    """Yield the ranges that split 0 … examples − 1 into batches."""
    return (range(start, min(start + batch_size, examples)) for start in range(0, examples, batch_size))


def batch_of(source: Source, rows: range, device: torch.device) -> Batch:
    """Return examples of a source that is on `device`.

    All uniform random numbers are 0.5, the middle of their range.
    """
    indices = torch.arange(rows.start, rows.stop, device=device)
    uniforms = torch.full((len(indices), source.draws), 0.5, device=device) if source.draws else None
    return source.batch(indices, uniforms)


class _Counted(NamedTuple):
    errors: int = 0
    n: int = 0
    nonfinite: int = 0
    """Examples with NaN or infinity among their scores."""
    classes_each: int = 1
    fault: str | None = None
    """The error of `read`."""


@contextmanager
def _answering(model: Classifier) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


@torch.no_grad()
def _answer(model: Classifier, batch: Batch) -> Evaluation:
    return Evaluation(model.scores(batch.images).float().cpu(), batch.labels.cpu())


def _nonfinite(evaluation: Evaluation) -> int:
    return int((~evaluation.scores.isfinite()).any(dim=1).sum())


def _refuse_nonfinite(nonfinite: int, n: int) -> None:
    if nonfinite:
        raise NotFinite(f"the model's scores are not finite for {nonfinite} of {n} test examples")
