"""Means over seeds, and differences between models, with intervals that say how far they can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan, sqrt
from statistics import mean, stdev
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from capsnet.experiments.record import Answers, Record

#: z of a two-sided 95 % interval.
Z = 1.959964

#: Verdicts need a corrected p of at most this.
SIGNIFICANT = 0.05

#: What an interval generalises over: runs; or, of a single run, what its test images show, or those images.
Over = Literal["seeds", "groups", "images"]


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float
    n: int
    """Seeds."""
    spread: float
    """Standard deviation over the seeds; NaN for a single run."""
    over: Over | None
    """What the interval is over; None for a single run's metric, which has none (NaN)."""


def t_interval(values: Sequence[float]) -> tuple[float, float]:
    """Student's 95 % interval of the mean of a few independent values; infinite for one.

    Raises:
        ValueError: no values.
    """
    if not values:
        raise ValueError("t_interval: no values")
    return _Student.of(values).interval()


def cluster_interval(values: ArrayLike, groups: NDArray[Any]) -> tuple[float, float]:
    """Student's 95 % interval of a mean whose values (n,) are independent between groups (n,), but not within.

    Groups weigh as many values as they have, so that the interval lies around the mean of all values, which is the
    number that is told. Where all groups are of one size this is Student's interval over the groups' means.
    Infinite for one group.
    """
    return _Student.clustered(np.asarray(values, np.float64), groups).interval()


def estimate(records: Sequence[Record], measure: str) -> Estimate | None:
    """Mean of a measure over the seeds of one variant; None if no run has it.

    The interval is Student's over seeds. Of a single run it is over its test set: `cluster_interval` over what the
    images show where several show the same, else Wilson's over the images.
    """
    found = [(record, value) for record in records if (value := record.value(measure)) is not None]
    if not found:
        return None
    values = [value for _, value in found]
    if len(values) > 1:
        return Estimate(mean(values), *t_interval(values), len(values), stdev(values), "seeds")
    tested = found[0][0].tests.get(measure)
    if tested is None:
        return Estimate(values[0], nan, nan, 1, nan, None)
    groups = tested.group_numbers()
    if groups is None:
        return Estimate(values[0], *tested.interval_95, 1, nan, "images")
    low, high = cluster_interval(tested.wrong().numpy(), groups)
    return Estimate(values[0], max(0.0, low), min(1.0, high), 1, nan, "groups")


@dataclass(frozen=True)
class Difference:
    """How much larger a measure is for one variant than for another."""

    mean: float
    low: float
    high: float
    n: int
    over: Over
    """What was paired and counted: runs of the same seed; or, with one seed, the answers to the same test images,
    as so many groups or so many images."""
    p: float
    """Two-sided, of no difference."""


def paired_difference(ours: Sequence[Record], others: Sequence[Record], measure: str) -> Difference | None:
    """Ours minus theirs, paired by seed.

    With two or more common seeds: Student's interval and t test of the paired differences. With one, and a test set:
    those of the difference of answers to the same images, which say nothing about other seeds. Over groups of images
    where they are known, as `cluster_interval`; else Wald's interval for McNemar's table and McNemar's exact test,
    which sees only the answers that differ and is sound for few, so that they may disagree at the border.

    Returns:
        None where there is no common seed, or one without a test set, or whose test sets are not the same.
    """
    by_seed = {record.seed: record for record in others}
    pairs = [
        (record, by_seed[record.seed])
        for record in ours
        if record.seed in by_seed
        and record.value(measure) is not None
        and by_seed[record.seed].value(measure) is not None
    ]
    if len(pairs) > 1:
        differences = [(a.value(measure) or 0.0) - (b.value(measure) or 0.0) for a, b in pairs]
        student = _Student.of(differences)
        return Difference(student.mean, *student.interval(), len(differences), "seeds", student.p())
    if len(pairs) == 1:
        one, other = (record.tests.get(measure) for record in pairs[0])
        if one is not None and other is not None and one.n == other.n:
            return _of_answers(one, other)
    return None


def _of_answers(one: Answers, other: Answers) -> Difference | None:
    change = one.wrong().numpy().astype(np.float64) - other.wrong().numpy()
    known = [numbers for answers in (one, other) if (numbers := answers.group_numbers()) is not None]
    if known:
        groups = known[0]
        if not np.array_equal(groups, known[-1]):
            return None
        student = _Student.clustered(change, groups)
        return Difference(student.mean, *student.interval(), len(np.unique(groups)), "groups", student.p())
    middle = float(change.mean())
    half = Z * sqrt(max(0.0, float(np.square(change).mean()) - middle**2) / one.n)
    return Difference(middle, middle - half, middle + half, one.n, "images", _mcnemar(change))


def _mcnemar(change: NDArray[np.float64]) -> float:
    """The exact test: of the answers that differ, are those for one model as many as those for the other?"""
    from scipy.stats import binomtest

    worse, differ = int((change > 0).sum()), int((change != 0).sum())
    return float(binomtest(worse, differ).pvalue) if differ else 1.0


def holm(values: Sequence[float]) -> list[float]:
    """p-values corrected for their number (Holm 1979), in the same order: those at most α are significant together.

    The chance that any of them is so where there is no difference at all is then at most α.
    """
    corrected = [0.0] * len(values)
    least = 0.0
    for place, index in enumerate(sorted(range(len(values)), key=lambda k: values[k])):
        least = max(least, min(1.0, (len(values) - place) * values[index]))
        corrected[index] = least
    return corrected


Verdict = Literal[
    "supported",
    "undecided",
    "contradicted",
    "supported, in this one run",
    "contradicted, in this one run",
]


def verdict(difference: Difference, better: Literal["lower", "higher"], p: float) -> Verdict:
    """Whether ours is better beyond chance. One seed has words of its own.

    Args:
        difference: ours minus theirs.
        better: which way is better.
        p: the difference's, corrected for the claims beside it (`holm`).
    """
    if not p <= SIGNIFICANT or difference.mean == 0:
        return "undecided"
    supported = (difference.mean < 0) == (better == "lower")
    if difference.over == "seeds":
        return "supported" if supported else "contradicted"
    return "supported, in this one run" if supported else "contradicted, in this one run"


@dataclass(frozen=True)
class _Student:
    """A mean with its standard error, for Student's distribution."""

    mean: float
    error: float
    freedom: int

    @classmethod
    def of(cls, values: ArrayLike, sizes: ArrayLike = 1.0) -> _Student:
        """Of independent sums (n,) of so many values each (n,): a ratio of sums, linearised."""
        sums = np.asarray(values, np.float64)
        count = np.broadcast_to(np.asarray(sizes, np.float64), sums.shape)
        middle, n = float(sums.sum() / count.sum()), len(sums)
        if n < 2:
            return cls(middle, float("inf"), 0)
        left = np.square(sums - middle * count).sum() * n / (n - 1)
        return cls(middle, sqrt(float(left)) / float(count.sum()), n - 1)

    @classmethod
    def clustered(cls, values: NDArray[np.float64], groups: NDArray[Any]) -> _Student:
        """Of values that are independent between groups only."""
        place = np.unique(groups, return_inverse=True)[1]
        return cls.of(np.bincount(place, weights=values), np.bincount(place))

    def interval(self) -> tuple[float, float]:
        """The 95 % interval; infinite without a degree of freedom."""
        if not self.freedom:
            return -float("inf"), float("inf")
        from scipy.stats import t

        half = float(t.ppf(0.975, self.freedom)) * self.error
        return self.mean - half, self.mean + half

    def p(self) -> float:
        """Of a mean of 0, two-sided; 1 without a degree of freedom."""
        if not self.freedom or not self.mean:
            return 1.0
        from scipy.stats import t

        return float(2 * t.sf(abs(self.mean) / self.error, self.freedom)) if self.error else 0.0
