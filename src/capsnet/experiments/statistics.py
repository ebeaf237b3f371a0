"""Means over seeds, and differences between models, with intervals that say how far they can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, nan, sqrt
from statistics import mean, stdev
from typing import Literal

from capsnet.experiments.record import Record

#: z of a two-sided 95 % interval.
Z = 1.959964


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float
    n: int
    """Seeds; 1 for a single run, whose interval is over test images (NaN where there are none)."""
    spread: float
    """Standard deviation over the seeds; NaN for a single run."""


def t_interval(values: Sequence[float]) -> tuple[float, float]:
    """Student's 95 % interval of the mean of a few independent values; infinite for one.

    Raises:
        ValueError: no values.
    """
    if not values:
        raise ValueError("t_interval: no values")
    if len(values) < 2:
        return -float("inf"), float("inf")
    from scipy.stats import t

    half = float(t.ppf(0.975, len(values) - 1)) * stdev(values) / sqrt(len(values))
    return mean(values) - half, mean(values) + half


def estimate(records: Sequence[Record], measure: str) -> Estimate | None:
    """Mean of a measure over the seeds of one variant; None if no run has it."""
    found = [(record, value) for record in records if (value := record.value(measure)) is not None]
    if not found:
        return None
    values = [value for _, value in found]
    if len(values) == 1:
        tested = found[0][0].tests.get(measure)
        low, high = tested.interval_95 if tested else (nan, nan)
        return Estimate(values[0], low, high, 1, nan)
    return Estimate(mean(values), *t_interval(values), len(values), stdev(values))


@dataclass(frozen=True)
class Difference:
    """How much larger a measure is for one variant than for another."""

    mean: float
    low: float
    high: float
    n: int
    over: Literal["seeds", "images"]
    """What was paired: runs of the same seed, or, with one seed, the answers to the same test images."""


def paired_difference(ours: Sequence[Record], others: Sequence[Record], measure: str) -> Difference | None:
    """Ours minus theirs, paired by seed.

    With two or more common seeds: Student's interval of the paired differences. With one, and a test set: the
    interval of a difference of two proportions on the same images (Wald's for McNemar's table), which says
    nothing about other seeds.

    Returns:
        None where there is no common seed, or one without a test set.
    """
    by_seed = {record.seed: record for record in others}
    pairs = [(record, by_seed[record.seed]) for record in ours if record.seed in by_seed]
    values = [
        (a, b)
        for x, y in pairs
        if (a := x.value(measure)) is not None and (b := y.value(measure)) is not None
    ]
    if len(values) >= 2:
        differences = [a - b for a, b in values]
        return Difference(mean(differences), *t_interval(differences), len(differences), "seeds")
    if len(values) == 1:
        one, other = (record.tests.get(measure) for record in pairs[0])
        if one is not None and other is not None and one.n == other.n:
            change = one.wrong().double() - other.wrong().double()
            middle = float(change.mean())
            half = Z * sqrt(max(0.0, float(change.square().mean()) - middle**2) / one.n)
            return Difference(middle, middle - half, middle + half, one.n, "images")
    return None


Verdict = Literal["supported", "undecided", "contradicted"]


def verdict(difference: Difference, better: Literal["lower", "higher"]) -> Verdict:
    """Whether ours is better beyond chance: the interval lies on one side of zero."""
    low, high = difference.low, difference.high
    if not (isfinite(low) and isfinite(high)):
        return "undecided"
    if better == "higher":
        low, high = -high, -low
    return "supported" if high < 0 else "contradicted" if low > 0 else "undecided"
