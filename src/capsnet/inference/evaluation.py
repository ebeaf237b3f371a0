"""Measure the test error, with the number of examples and a confidence interval."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite, sqrt
from typing import Any, NamedTuple, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from capsnet._support.errors import CapsnetError, NotFinite
from capsnet.data.dataset import Batch, Dataset, Source, middle_batch
from capsnet.distributed import WorkerGroup
from capsnet.models.base import Classifier

Portion = TypeVar("Portion")

#: Examples per batch. With 500, matrix capsules take 2.6 times as long on a CPU, and CapsNet gains 10 to 18 %.
BATCH_SIZE = 100
#: Score from which on a class counts as present, if an image may show any number of classes.
PRESENT = 0.5


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


class Tally(NamedTuple):
    """How often each class was there, was predicted, and was both, among n examples."""

    there: Int[Tensor, " classes"]
    predicted: Int[Tensor, " classes"]
    both: Int[Tensor, " classes"]
    n: int

    def plus(self, other: Tally) -> Tally:
        """Return the tally of the examples of both."""
        return Tally(
            self.there + other.there,
            self.predicted + other.predicted,
            self.both + other.both,
            self.n + other.n,
        )

    @property
    def recall(self) -> Float[Tensor, " classes"]:
        """Return the share of each class's examples in which it was predicted; NaN without examples."""
        return self.both / self.there

    @property
    def specificity(self) -> Float[Tensor, " classes"]:
        """Return the share of the other examples in which the class was not predicted."""
        return 1 - (self.predicted - self.both) / (self.n - self.there)

    @property
    def is_imbalanced(self) -> bool:
        """Return whether a class has at least 1.5 times as many examples as another."""
        there = self.there[self.there > 0]
        return bool(there.max() >= 1.5 * there.min()) if len(there) else False


class Measured(ABC):
    """Errors among n test examples.

    An example is right only if all its classes are found, in any order.
    """

    #: Whether an image may show any number of classes. Then a class counts as predicted from a score of 0.5 on.
    is_multi_label: bool = False

    @property
    @abstractmethod
    def tally(self) -> Tally:
        """Return the counts of each class."""

    @property
    def balanced_accuracy(self) -> float:
        """Return the mean recall of the classes, so that rare classes count as much as common ones.

        With any number of classes in an image: the mean of recall and specificity. NaN if no class is in some of the
        images and not in others.
        """
        tally = self.tally
        shares = (tally.recall + tally.specificity) / 2 if self.is_multi_label else tally.recall
        return float(shares.nanmean())

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
        if self.is_multi_label:
            return "exact-match error"
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
        """Return the values for result.json; None where a value is not defined."""
        low, high = self.interval
        balanced = self.balanced_accuracy
        return {
            "test_error": self.error,
            "interval_95": [low, high],
            "interval_method": "Wilson",
            "errors": self.errors,
            "n": self.n,
            "balanced_accuracy": balanced if isfinite(balanced) else None,
        }

    def __str__(self) -> str:
        low, high = self.interval
        error = f"{self.error:.2%} ({self.errors} of {self.n}; 95 % interval {low:.2%} to {high:.2%})"
        if (self.is_multi_label or self.tally.is_imbalanced) and isfinite(self.balanced_accuracy):
            return f"{error}, balanced accuracy {self.balanced_accuracy:.2%}"
        return error


@dataclass(frozen=True, eq=False)
class Evaluation(Measured):
    """Scores and labels of a whole test set."""

    scores: Float[Tensor, "n classes"]
    labels: Int[Tensor, "n count"]

    @property
    def predictions(self) -> Int[Tensor, "n count"]:
        """Return as many classes as each example has, the highest score first.

        With any number of classes in an image: a column for each class, -1 where its score is below 0.5.
        """
        if self.is_multi_label:
            return torch.where(self.scores >= PRESENT, torch.arange(self.scores.shape[1]), -1)
        return self.scores.topk(self.labels.shape[1], dim=1).indices

    @property
    def wrong(self) -> Tensor:
        """Return which examples are wrong, bool (n,)."""
        return (self.predictions.sort(dim=1).values != self.labels.sort(dim=1).values).any(dim=1)

    @property
    def is_multi_label(self) -> bool:  # type: ignore[override]
        """Return whether an image may show any number of classes."""
        return self.labels.shape[1] == self.scores.shape[1]

    @property
    def tally(self) -> Tally:
        """Return the counts of each class."""
        there, predicted = (
            flags_of(numbers, self.scores.shape[1]) for numbers in (self.labels, self.predictions)
        )
        return Tally(there.sum(dim=0), predicted.sum(dim=0), (there & predicted).sum(dim=0), self.n)

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

    def __init__(
        self, errors: int, tally: Tally, classes_each: int = 1, is_multi_label: bool = False
    ) -> None:
        self._errors, self._tally, self._classes_each = errors, tally, classes_each
        self.is_multi_label = is_multi_label

    @property
    def tally(self) -> Tally:
        """Return the counts of each class."""
        return self._tally

    @property
    def n(self) -> int:
        """Return the number of examples."""
        return self._tally.n

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
        return _Counted(part.errors, part.tally, _nonfinite(part), part.classes_each, part.is_multi_label)

    errors = nonfinite = 0
    tally: Tally | None = None
    last = _Counted()
    with _answering(model):
        for counted in workers.map(count, portions):
            if counted.fault or counted.tally is None:
                raise CapsnetError(counted.fault)
            errors, nonfinite = errors + counted.errors, nonfinite + counted.nonfinite
            tally = counted.tally if tally is None else tally.plus(counted.tally)
            last = counted
    if tally is None:  # only rank 0 gets the counts
        return None
    _refuse_nonfinite(nonfinite, tally.n)
    return Count(errors, tally, last.classes_each, last.is_multi_label)


def row_ranges(examples: int, batch_size: int = BATCH_SIZE) -> Iterator[range]:
    """Yield the ranges that split 0 … examples − 1 into batches."""
    return (range(start, min(start + batch_size, examples)) for start in range(0, examples, batch_size))


def batch_of(source: Source, rows: range, device: torch.device) -> Batch:
    """Return examples of a source that is on `device`.

    All uniform random numbers are 0.5, the middle of their range.
    """
    return middle_batch(source, torch.arange(rows.start, rows.stop, device=device))


class _Counted(NamedTuple):
    errors: int = 0
    tally: Tally | None = None
    nonfinite: int = 0
    """Examples with NaN or infinity among their scores."""
    classes_each: int = 1
    is_multi_label: bool = False
    fault: str = ""
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


def flags_of(numbers: Int[Tensor, "n count"], classes: int) -> Tensor:
    """Return for each class whether it is among an example's numbers, bool (n, classes); -1 is no class."""
    flags = torch.zeros(len(numbers), classes + 1, dtype=torch.bool)
    return flags.scatter(1, numbers % (classes + 1), True)[:, :classes]


def _nonfinite(evaluation: Evaluation) -> int:
    return int((~evaluation.scores.isfinite()).any(dim=1).sum())


def _refuse_nonfinite(nonfinite: int, n: int) -> None:
    if nonfinite:
        raise NotFinite(f"the model's scores are not finite for {nonfinite} of {n} test examples")
