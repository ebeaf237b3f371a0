"""Means over seeds, and differences between models, with intervals that say how far they can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan, sqrt
from statistics import mean, stdev
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from capsnet.experiments.means import Mean, cluster_interval, crossed_interval, half_width, t_interval
from capsnet.experiments.record import Answers, Record
from capsnet.inference.evaluation import wilson_interval

#: z of two-sided intervals of 95 % and 90 %.
Z = 1.959964
Z90 = 1.644854

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


def estimate(records: Sequence[Record], measure: str) -> Estimate | None:
    """Return a measure's mean over the seeds of a variant; None if no run has it.

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
        if tests.groups is None:  # few errors do not vary: at least as wide as for one run
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
    """The difference of a measure between two variants."""

    mean: float
    low: float
    high: float
    low_90: float
    high_90: float
    """The 90 % interval: it lies within a margin if two one-sided tests at 5 % say so."""
    seeds: int
    """Pairs of runs of the same seed."""
    unit: Unit | None
    """What of the test set answers were paired over, beside the seeds if there are several; None: only runs were."""
    units: int
    """How many of them; 0 where only runs were paired."""
    p: float
    """Two-sided, of no difference."""
    halves: tuple[float, float] | None = None
    """Halves of the 95 % intervals over seeds alone and over the test set alone, which add up as squares; None where
    the interval is over one of them."""

    def within(self, margin: float) -> bool:
        """Return whether the 90 % interval lies within the margin on both sides."""
        return -margin < self.low_90 and self.high_90 < margin


@dataclass(frozen=True, eq=False)
class Paired:
    """The difference ours − theirs, by seed and by test image."""

    runs: NDArray[np.float64]
    """Of the measure (runs,)."""
    images: NDArray[np.float64] | None
    """Of wrong answers (runs, images); None where the measure counts none, or not on the same images."""
    groups: NDArray[Any] | None
    """What each image shows (images,), if several show the same."""


def paired(ours: Sequence[Record], others: Sequence[Record], measure: str) -> Paired | None:
    """Return the differences of runs of the same seed; None where there are none."""
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
    runs = np.array([(a.value(measure) or 0.0) - (b.value(measure) or 0.0) for a, b in pairs])
    one, other = (
        _Answered.of([record.tests.get(measure) for record in side]) for side in zip(*pairs, strict=True)
    )
    if one is None or other is None or not one.same_images(other):
        return Paired(runs, None, None)
    groups = other.groups if one.groups is None else one.groups
    return Paired(runs, one.wrong.astype(np.float64) - other.wrong, groups)


def paired_difference(ours: Sequence[Record], others: Sequence[Record], measure: str) -> Difference | None:
    """Return ours − theirs, paired by seed, and by test image for an error.

    With two or more common seeds: `crossed_interval` of the differences of answers, and the p it ends at; of metrics
    Student's interval and t test of the differences over seeds. With one, and a test set: those of the difference of
    answers to the same images, which say nothing about other seeds. Over groups of images where they are known, as
    `cluster_interval`; else Wald's interval for McNemar's table and McNemar's exact test, which sees only the answers
    that differ and is sound for few, so that they may disagree at the border.

    The 90 % interval is of the same kind, but over images as if there were two more, one that only ours and one that
    only theirs gets wrong (Bonett and Price 2012): a few images on which nothing differs do not show equality.

    Returns:
        None where there is no common seed, or one without a test set, or whose test sets are not the same.
    """
    found = paired(ours, others, measure)
    if found is None:
        return None
    seeds, change, groups = len(found.runs), found.images, found.groups
    if change is None:
        return None if seeds == 1 else _difference(Mean.of(found.runs), seeds)
    if groups is not None:
        over_groups = Mean.clustered(change[0], groups) if seeds == 1 else Mean.crossed(change, groups)
        return _difference(over_groups, seeds, "groups", len(np.unique(groups)))
    if seeds == 1:
        return _of_one_run(change[0])
    crossed, wider = Mean.crossed(change, None), Mean.of(_with_two_more(change.mean(axis=0)))
    wide = Mean(crossed.mean, (crossed.parts[0], *wider.parts))
    return _difference(crossed, seeds, "images", change.shape[1], wide)


def _difference(
    found: Mean, seeds: int, unit: Unit | None = None, units: int = 0, wide: Mean | None = None
) -> Difference:
    """Return the difference; its 90 % interval is as wide as that of `wide`."""
    half = (wide or found).half(0.1)
    ends = (*found.interval(), found.mean - half, found.mean + half)
    halves = [float(half_width([(part.error, part.freedom)], 0.05)) for part in found.parts]
    both = (halves[0], halves[1]) if len(halves) == 2 else None
    return Difference(found.mean, *ends, seeds, unit, units, found.p(), both)


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
        """Return whether two test sets have the same size and, where known, groups."""
        if self.wrong.shape[1] != other.wrong.shape[1]:
            return False
        return self.groups is None or other.groups is None or np.array_equal(self.groups, other.groups)


def _with_two_more(change: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the differences (images,) and those of two images that one side misses."""
    return np.append(change, [1.0, -1.0])


def _of_one_run(change: NDArray[np.float64]) -> Difference:
    middle = float(change.mean())
    half, half_90 = Z * _wald(change), Z90 * _wald(_with_two_more(change))
    ends = (middle - half, middle + half, middle - half_90, middle + half_90)
    return Difference(middle, *ends, 1, "images", len(change), _mcnemar(change))


def _wald(change: NDArray[np.float64]) -> float:
    """Return the standard error of the mean of paired answers."""
    return sqrt(max(0.0, float(np.square(change).mean() - change.mean() ** 2)) / len(change))


def _mcnemar(change: NDArray[np.float64]) -> float:
    """Return the p-value of McNemar's exact test: do both models err equally often?"""
    from scipy.stats import binomtest

    worse, differ = int((change > 0).sum()), int((change != 0).sum())
    return float(binomtest(worse, differ).pvalue) if differ else 1.0
