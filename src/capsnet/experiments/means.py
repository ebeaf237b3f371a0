"""The mean of a few runs on many images: its intervals, and the p-value that belongs to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, inf, log, sqrt
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


def t_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return Student's 95 % interval of a mean; infinite for a single value.

    Raises:
        ValueError: no values.
    """
    if not values:
        raise ValueError("t_interval: no values")
    return Mean.of(values).interval()


def cluster_interval(values: ArrayLike, groups: NDArray[Any]) -> tuple[float, float]:
    """Return Student's 95 % interval of the mean of grouped values (n,).

    Groups are weighted by size, so the interval is centred on the mean of all values. Where all groups are of one size
    this is Student's interval over the groups' means. Infinite for one group.
    """
    return Mean.clustered(np.asarray(values, np.float64), groups).interval()


def crossed_interval(values: ArrayLike, groups: NDArray[Any] | None = None) -> tuple[float, float]:
    """Return the 95 % interval of a mean over other runs and other images at once.

    Every run answers the same images, and both could have been others. Student's interval of the runs' means is joined
    with that of the images' means, or of their groups' (images,): the halves add up as squares (MOVER; Zou and Donner
    2008). What neither explains is in both, so that the interval is too wide rather than too narrow; it is never
    narrower than Student's over runs. Infinite for one run, and for one image or group.
    """
    return Mean.crossed(np.asarray(values, np.float64), groups).interval()


@dataclass(frozen=True)
class Part:
    """A source of variation: its standard error of the mean and degrees of freedom."""

    error: float
    freedom: int


def half_width(parts: Sequence[tuple[Any, Any]], p: float) -> Any:
    """Return half the width of the 1 − p interval: the parts' squares, added up.

    Welch's and Satterthwaite's degrees of freedom, which are usual, are too many where three runs happen to look
    alike: up to 8 % of differences would be significant at 5 % where there is none. So it is at most 5 %.

    Args:
        parts: standard errors and their degrees of freedom, numbers or arrays.
        p: the chance that is left out, on both sides together.
    """
    from scipy.stats import t

    total: Any = 0.0
    for error, freedom in parts:
        half = t.isf(p / 2, np.maximum(freedom, 1)) * error
        total = np.hypot(total, np.where(np.asarray(freedom) > 0, half, inf))
    return total


@dataclass(frozen=True)
class Mean:
    """A mean and its sources of variation."""

    mean: float
    parts: tuple[Part, ...]

    @classmethod
    def of(cls, values: ArrayLike, sizes: ArrayLike = 1.0) -> Mean:
        """Return the linearised mean of independent sums (n,) of `sizes` values each."""
        sums = np.asarray(values, np.float64)
        count = np.broadcast_to(np.asarray(sizes, np.float64), sums.shape)
        middle, n = float(sums.sum() / count.sum()), len(sums)
        if n < 2:
            return cls(middle, (Part(inf, 0),))
        left = np.square(sums - middle * count).sum() * n / (n - 1)
        return cls(middle, (Part(sqrt(float(left)) / float(count.sum()), n - 1),))

    @classmethod
    def clustered(cls, values: NDArray[np.float64], groups: NDArray[Any]) -> Mean:
        """Return the mean of values that are independent between groups only."""
        place = np.unique(groups, return_inverse=True)[1]
        return cls.of(np.bincount(place, weights=values), np.bincount(place))

    @classmethod
    def crossed(cls, values: NDArray[np.float64], groups: NDArray[Any] | None) -> Mean:
        """Return the mean of values (runs, images), with both as sources of variation."""
        runs, images = values.mean(axis=1), values.mean(axis=0)
        over_images = cls.of(images) if groups is None else cls.clustered(images, groups)
        over_runs = cls.of(runs)
        return cls(over_runs.mean, (*over_runs.parts, *over_images.parts))

    def half(self, p: float) -> float:
        """Return half the width of the 1 − p interval; see `half_width`."""
        return float(half_width([(part.error, part.freedom) for part in self.parts], p))

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Return the interval at a level; infinite if a part has no degree of freedom."""
        half = self.half(1 - level)
        return self.mean - half, self.mean + half

    def p(self) -> float:
        """Return the two-sided p-value of a mean of 0; 1 if the interval is infinite."""
        if not self.mean or not all(part.freedom for part in self.parts):
            return 1.0
        from scipy.optimize import brentq

        def beyond(exponent: float) -> float:
            return self.half(exp(exponent)) - abs(self.mean)

        least = log(1e-300)
        return exp(float(brentq(beyond, least, 0.0))) if beyond(least) > 0 else 0.0
