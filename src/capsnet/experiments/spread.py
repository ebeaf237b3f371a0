"""What varies in a difference between two variants, and how many seeds it takes to see through it."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capsnet.experiments.means import half_width
from capsnet.experiments.statistics import Paired
from capsnet.experiments.verdicts import SIGNIFICANT

#: The chance to find what there is.
POWER = 0.8
#: More seeds than these are not looked at.
MOST = 100
#: The seeds that a plan is made from, and the least and most seeds that it asks for.
PILOT, LEAST, LARGEST = 3, 8, 30

Real = float | NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Spread:
    """Standard deviations of the parts of a difference: seeds, images, single answers."""

    seeds: Real
    """Between seeds."""
    images: Real = 0.0
    """Between test images, or between the things that they show."""
    answers: Real = 0.0
    """Of one seed's answer to one image, beyond both."""
    units: int = 0
    """Test images, or things that they show; 0 for a measure that counts no answers."""

    @classmethod
    def of(cls, found: Paired) -> Spread:
        """Estimate a spread by an analysis of variance.

        Raises:
            ValueError: one seed says nothing about others.
        """
        runs = len(found.runs)
        if runs < 2:
            raise ValueError("Spread.of: at least two seeds")
        if found.images is None:
            return cls(float(found.runs.std(ddof=1)))
        values = found.images if found.groups is None else _by_group(found.images, found.groups)
        units = values.shape[1]
        over_runs, over_units = values.mean(axis=1, keepdims=True), values.mean(axis=0, keepdims=True)
        rest = np.square(values - over_runs - over_units + values.mean()).sum() / ((runs - 1) * (units - 1))
        return cls.of_variances(over_runs.var(ddof=1), over_units.var(ddof=1), rest, runs, units)

    @classmethod
    def of_variances(cls, over_runs: Real, over_units: Real, rest: Real, runs: int, units: int) -> Spread:
        """Build it from the variances of run means, of image means and of residuals."""
        seeds, images = over_runs - rest / units, over_units - rest / runs
        return cls(np.sqrt(np.maximum(0.0, seeds)), np.sqrt(np.maximum(0.0, images)), np.sqrt(rest), units)

    def error(self, seeds: Any) -> Any:
        """Return the standard error of the mean over `seeds` seeds (number or array)."""
        variance = np.square(self.seeds) / seeds
        if self.units:
            variance = variance + (np.square(self.images) + np.square(self.answers) / seeds) / self.units
        return np.sqrt(variance)

    def parts(self, seeds: Any) -> list[tuple[Any, Any]]:
        """Return expected standard errors over seeds and images, with degrees of freedom.

        They are what `Mean.crossed` estimates.
        """
        if not self.units:
            return [(np.sqrt(np.square(self.seeds) / seeds), seeds - 1)]
        rest = np.square(self.answers)
        return [
            (np.sqrt((np.square(self.seeds) + rest / self.units) / seeds), seeds - 1),
            (np.sqrt((np.square(self.images) + rest / seeds) / self.units), self.units - 1),
        ]


def for_difference(spread: Spread, size: float, claims: int, most: int = MOST) -> Any:
    """Return the seeds that find a difference of this size with a chance of `POWER`.

    `most` + 1 stands for more than `most`.
    It must survive Holm's correction where it is the first of all claims. Runs are taken to show the standard errors
    of the spread.

    Args:
        spread: of the claim's difference; its numbers may be arrays (n,).
        size: of the difference.
        claims: how many are corrected for.
        most: more seeds than these are not looked at.
    """
    return _first(spread, size, SIGNIFICANT / claims, POWER, most)


def for_equivalence(spread: Spread, margin: float, most: int = MOST) -> Any:
    """Return the seeds that show equivalence with a chance of `POWER`.

    The difference is taken to be 0; `most` + 1 stands for more than `most`.
    """
    return _first(spread, margin, 2 * SIGNIFICANT, (1 + POWER) / 2, most)


def _first(spread: Spread, room: float, p: float, chance: float, most: int) -> Any:
    """Return the fewest seeds whose 1 − p interval fits in the room with this chance."""
    seeds = np.arange(2, most + 1)[:, None]
    enough = half_width(spread.parts(seeds), p) + NormalDist().inv_cdf(chance) * spread.error(seeds) <= room
    found = np.where(enough.any(axis=0), 2 + enough.argmax(axis=0), most + 1)
    return int(found[0]) if len(found) == 1 else found


def planned(pilot: Spread, margin: float, claims: int) -> Any:
    """Return the seeds to run for a claim.

    They are enough for a difference of the margin's size and for equivalence. What more than `LARGEST` seeds would show
    is not planned for; `LEAST` are run in any case. The plan is made once, from the spread of the first `PILOT` seeds.
    Their difference has no part in it, nor have later seeds: adding seeds until a verdict appears makes false verdicts
    more frequent.
    """
    asked = [for_difference(pilot, margin, claims, LARGEST), for_equivalence(pilot, margin, LARGEST)]
    within = [np.where(np.asarray(seeds) <= LARGEST, seeds, LEAST) for seeds in asked]
    found = np.maximum(LEAST, np.maximum(*within))
    return int(found) if found.ndim == 0 else found


def _by_group(images: NDArray[np.float64], groups: NDArray[Any]) -> NDArray[np.float64]:
    """Return the values (runs, groups), whose mean is that of the run's images."""
    place = np.unique(groups, return_inverse=True)[1]
    sizes = np.bincount(place)
    sums = np.stack([np.bincount(place, weights=run) for run in images])
    over_runs = images.mean(axis=1, keepdims=True)
    weighted: NDArray[np.float64] = over_runs + (sums - over_runs * sizes) * len(sizes) / sizes.sum()
    return weighted
