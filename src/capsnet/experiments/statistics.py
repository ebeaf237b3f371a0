"""Means over seeds, and differences between models, with intervals that say how far they can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, hypot, inf, log, nan, sqrt
from statistics import mean, stdev
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from capsnet.experiments.record import Answers, Record
from capsnet.inference.evaluation import wilson_interval

#: z of a two-sided 95 % interval.
Z = 1.959964

#: Verdicts need a corrected p of at most this.
SIGNIFICANT = 0.05

#: What the examples of a test set are counted as: images, or groups of images that show the same thing.
Unit = Literal["images", "groups"]


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float
    seeds: int
    spread: float
    """Standard deviation over the seeds; NaN for a single run."""
    unit: Unit | None
    """What of the test set the interval is over, beside the seeds if there are several; None where it is over seeds
    only, and for a single run's metric, which has no interval (NaN)."""


def t_interval(values: Sequence[float]) -> tuple[float, float]:
    """Student's 95 % interval of the mean of a few independent values; infinite for one.

    Raises:
        ValueError: no values.
    """
    if not values:
        raise ValueError("t_interval: no values")
    return _Mean.of(values).interval()


def cluster_interval(values: ArrayLike, groups: NDArray[Any]) -> tuple[float, float]:
    """Student's 95 % interval of a mean whose values (n,) are independent between groups (n,), but not within.

    Groups weigh as many values as they have, so that the interval lies around the mean of all values, which is the
    number that is told. Where all groups are of one size this is Student's interval over the groups' means.
    Infinite for one group.
    """
    return _Mean.clustered(np.asarray(values, np.float64), groups).interval()


def crossed_interval(values: ArrayLike, groups: NDArray[Any] | None = None) -> tuple[float, float]:
    """A 95 % interval of the mean of values (runs, images), about other runs and other images at once.

    Every run answers the same images, and both could have been others. Student's interval of the runs' means is joined
    with that of the images' means, or of their groups' (images,): the halves add up as squares (MOVER; Zou and Donner
    2008). What neither explains is in both, so that the interval is too wide rather than too narrow; it is never
    narrower than Student's over runs. Infinite for one run, and for one image or group.
    """
    return _Mean.crossed(np.asarray(values, np.float64), groups).interval()


def estimate(records: Sequence[Record], measure: str) -> Estimate | None:
    """Mean of a measure over the seeds of one variant; None if no run has it.

    The interval of an error is over seeds and test set, `crossed_interval`, and covers Wilson's of the mean error,
    which is sound for few; of a metric it is over seeds, Student's. Of a single run it is over its test set:
    `cluster_interval` over what the images show where several show the same, else Wilson's over the images.
    """
    found = [(record, value) for record in records if (value := record.value(measure)) is not None]
    if not found:
        return None
    values = [value for _, value in found]
    tests = _Answered.of([record.tests.get(measure) for record, _ in found])
    if len(values) > 1:
        if tests is None:
            return Estimate(mean(values), *t_interval(values), len(values), stdev(values), None)
        low, high = crossed_interval(tests.wrong, tests.groups)
        if tests.groups is None:  # of few errors nothing varies: not less than is told of one run
            n = tests.wrong.shape[1]
            least, most = wilson_interval(round(n * mean(values)), n)
            low, high = min(low, least), max(high, most)
        return Estimate(mean(values), max(0.0, low), min(1.0, high), len(values), stdev(values), tests.unit)
    tested = found[0][0].tests.get(measure)
    if tests is None or tested is None:
        return Estimate(values[0], nan, nan, 1, nan, None)
    if tests.groups is None:
        return Estimate(values[0], *tested.interval_95, 1, nan, "images")
    low, high = cluster_interval(tests.wrong[0], tests.groups)
    return Estimate(values[0], max(0.0, low), min(1.0, high), 1, nan, "groups")


@dataclass(frozen=True)
class Difference:
    """How much larger a measure is for one variant than for another."""

    mean: float
    low: float
    high: float
    seeds: int
    """Pairs of runs of the same seed."""
    unit: Unit | None
    """What of the test set answers were paired over, beside the seeds if there are several; None: only runs were."""
    units: int
    """How many of them; 0 where only runs were paired."""
    p: float
    """Two-sided, of no difference."""


def paired_difference(ours: Sequence[Record], others: Sequence[Record], measure: str) -> Difference | None:
    """Ours minus theirs, paired by seed, and by test image where a measure is an error.

    With two or more common seeds: `crossed_interval` of the differences of answers, and the p it ends at; of metrics
    Student's interval and t test of the differences over seeds. With one, and a test set: those of the difference of
    answers to the same images, which say nothing about other seeds. Over groups of images where they are known, as
    `cluster_interval`; else Wald's interval for McNemar's table and McNemar's exact test, which sees only the answers
    that differ and is sound for few, so that they may disagree at the border.

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
    if not pairs:
        return None
    tests = [
        _Answered.of([record.tests.get(measure) for record in side]) for side in zip(*pairs, strict=True)
    ]
    one, other = tests
    if one is None or other is None or not one.same_images(other):
        if len(pairs) == 1:
            return None
        differences = [(a.value(measure) or 0.0) - (b.value(measure) or 0.0) for a, b in pairs]
        found = _Mean.of(differences)
        return Difference(found.mean, *found.interval(), len(pairs), None, 0, found.p())
    groups = other.groups if one.groups is None else one.groups
    change = one.wrong.astype(np.float64) - other.wrong
    if len(pairs) > 1:
        found = _Mean.crossed(change, groups)
    elif groups is not None:
        found = _Mean.clustered(change[0], groups)
    else:
        return _of_one_run(change[0])
    unit: Unit = "images" if groups is None else "groups"
    units = change.shape[1] if groups is None else len(np.unique(groups))
    return Difference(found.mean, *found.interval(), len(pairs), unit, units, found.p())


@dataclass(frozen=True, eq=False)
class _Answered:
    """The same test set, answered by several runs."""

    wrong: NDArray[np.bool_]
    """(runs, images)."""
    groups: NDArray[Any] | None

    @classmethod
    def of(cls, tests: Sequence[Answers | None]) -> _Answered | None:
        """Put runs together; None where one of them was not tested, or on other images."""
        there = [test for test in tests if test is not None]
        if len(there) < len(tests) or len({test.n for test in there}) != 1:
            return None
        known = [numbers for test in there if (numbers := test.group_numbers()) is not None]
        if any(not np.array_equal(numbers, known[0]) for numbers in known):
            return None
        return cls(np.stack([test.wrong().numpy() for test in there]), known[0] if known else None)

    @property
    def unit(self) -> Unit:
        return "images" if self.groups is None else "groups"

    def same_images(self, other: _Answered) -> bool:
        """As far as can be told: as many, and of the same groups where both know them."""
        if self.wrong.shape[1] != other.wrong.shape[1]:
            return False
        return self.groups is None or other.groups is None or np.array_equal(self.groups, other.groups)


def _of_one_run(change: NDArray[np.float64]) -> Difference:
    middle, n = float(change.mean()), len(change)
    half = Z * sqrt(max(0.0, float(np.square(change).mean()) - middle**2) / n)
    return Difference(middle, middle - half, middle + half, 1, "images", n, _mcnemar(change))


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
    if difference.seeds > 1:
        return "supported" if supported else "contradicted"
    return "supported, in this one run" if supported else "contradicted, in this one run"


@dataclass(frozen=True)
class _Part:
    """A source of chance: the standard error that it gives the mean, and the degrees of freedom of that."""

    error: float
    freedom: int

    def half(self, p: float) -> float:
        """Half of Student's interval that leaves out `p`."""
        from scipy.stats import t

        return float(t.isf(p / 2, self.freedom)) * self.error if self.freedom else inf


@dataclass(frozen=True)
class _Mean:
    """A mean, and what could have made it another one."""

    mean: float
    parts: tuple[_Part, ...]

    @classmethod
    def of(cls, values: ArrayLike, sizes: ArrayLike = 1.0) -> _Mean:
        """Of independent sums (n,) of so many values each (n,): a ratio of sums, linearised."""
        sums = np.asarray(values, np.float64)
        count = np.broadcast_to(np.asarray(sizes, np.float64), sums.shape)
        middle, n = float(sums.sum() / count.sum()), len(sums)
        if n < 2:
            return cls(middle, (_Part(inf, 0),))
        left = np.square(sums - middle * count).sum() * n / (n - 1)
        return cls(middle, (_Part(sqrt(float(left)) / float(count.sum()), n - 1),))

    @classmethod
    def clustered(cls, values: NDArray[np.float64], groups: NDArray[Any]) -> _Mean:
        """Of values that are independent between groups only."""
        place = np.unique(groups, return_inverse=True)[1]
        return cls.of(np.bincount(place, weights=values), np.bincount(place))

    @classmethod
    def crossed(cls, values: NDArray[np.float64], groups: NDArray[Any] | None) -> _Mean:
        """Of values (runs, images), both of which could have been others."""
        runs, images = values.mean(axis=1), values.mean(axis=0)
        over_images = cls.of(images) if groups is None else cls.clustered(images, groups)
        over_runs = cls.of(runs)
        return cls(over_runs.mean, (*over_runs.parts, *over_images.parts))

    def half(self, p: float) -> float:
        """Half of the interval that leaves out `p`: the parts' own halves, added up as squares.

        Welch's and Satterthwaite's degrees of freedom, which are usual, are too many where three runs happen to look
        alike: up to 8 % of differences would be significant at 5 % where there is none. So it is at most 5 %.
        """
        return hypot(*(part.half(p) for part in self.parts))

    def interval(self) -> tuple[float, float]:
        """The 95 % interval; infinite where a part has no degree of freedom."""
        half = self.half(0.05)
        return self.mean - half, self.mean + half

    def p(self) -> float:
        """Of a mean of 0, two-sided: the p whose interval ends at 0. 1 where the interval is infinite."""
        if not self.mean or not all(part.freedom for part in self.parts):
            return 1.0
        from scipy.optimize import brentq

        def beyond(exponent: float) -> float:
            return self.half(exp(exponent)) - abs(self.mean)

        least = log(1e-300)
        return exp(float(brentq(beyond, least, 0.0))) if beyond(least) > 0 else 0.0
