"""How often verdicts err, and how often they find what there is: simulated at the spreads that records show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from capsnet.experiments.means import half_width
from capsnet.experiments.record_groups import Group
from capsnet.experiments.spread import LARGEST, LEAST, PILOT, Spread, planned
from capsnet.experiments.statistics import paired
from capsnet.experiments.verdicts import SIGNIFICANT

#: Numbers of seeds that the table shows.
SEEDS = (3, 5, 8, 12)
#: Experiments made up for each claim and number of seeds.
DRAWS = 20_000

SECTION = """\
## How often verdicts err

Simulated by `capsnet report --results`: {draws:,} made-up experiments for each of the {claims} claims that have records
of two seeds or more. They are normally distributed, with the standard deviations between seeds, between test images and
between single answers that these records show. Shares are means over the claims, and in brackets the largest of any
claim, which the simulation knows to about half a point. Each claim stands by itself for the false verdicts; Holm's
correction makes false differences rarer still. For the right ones it is the first that Holm corrects, so most claims do
better. "As planned" is the number of seeds that `capsnet reproduce --budget` runs: {least} to {largest}, chosen by the
spread of the first {pilot}.

"""
#: Columns of the table, in the order of `Rates`.
COLUMNS = (
    "false: a difference where there is none",
    "false: equivalent where the difference is the margin",
    "right: a difference of the margin is found",
    "right: a difference of twice the margin is found",
    "right: equivalent where there is no difference",
)


@dataclass(frozen=True)
class Case:
    """The numbers of a claim that a simulation needs."""

    spread: Spread
    margin: float
    claims: int
    """How many are corrected for."""


@dataclass(frozen=True)
class Rates:
    """Shares of made-up experiments, 0…1."""

    false_difference: float
    """There is no difference, and p is at most 0.05 before correction."""
    false_equivalence: float
    """The difference is as large as the margin, and the verdict is "equivalent"."""
    difference: float
    """The difference is as large as the margin and found, after Holm's correction as the first of all claims."""
    double: float
    """The same of twice the margin."""
    equivalence: float
    """There is no difference, and the verdict is "equivalent"."""


def cases(groups: Sequence[Group]) -> list[Case]:
    """Return the claims that have records of two seeds or more."""
    found = []
    for group in groups:
        claims = group.experiment.claims
        pairs = [
            (claim, paired(group.of(claim.ours), group.of(claim.against), claim.measure)) for claim in claims
        ]
        there = [(claim, pair) for claim, pair in pairs if pair is not None]
        found += [
            Case(Spread.of(pair), claim.margin.size, len(there))
            for claim, pair in there
            if len(pair.runs) > 1
        ]
    return found


def rates(case: Case, seeds: int, random: np.random.Generator, draws: int = DRAWS) -> Rates:
    """Simulate experiments of `seeds` seeds; return how often each verdict is given."""
    error = case.spread.error(seeds) * random.standard_normal(draws)
    parts = [
        (expected * np.sqrt(_variance(random, freedom, draws)), freedom)
        for expected, freedom in case.spread.parts(seeds)
    ]
    return _rates(case, error, parts)


def planned_rates(case: Case, random: np.random.Generator, draws: int = DRAWS // 4) -> Rates:
    """Simulate experiments whose first seeds decide how many seeds follow (`planned`)."""
    spread, units = case.spread, case.spread.units
    runs = np.square(spread.parts(1)[0][0])
    first = random.chisquare(PILOT - 1, draws)
    if units:
        rest = np.square(spread.answers) * _variance(random, (PILOT - 1) * (units - 1), draws)
        of_images = _variance(random, units - 1, draws)
        over_units = (np.square(spread.images) + np.square(spread.answers) / PILOT) * of_images
        pilot = Spread.of_variances(runs * first / (PILOT - 1), over_units, rest, PILOT, units)
    else:
        pilot = Spread(np.sqrt(runs * first / (PILOT - 1)))
    seeds = planned(pilot, case.margin, case.claims)
    shown = [np.sqrt((first + random.chisquare(seeds - PILOT)) / (seeds - 1))]
    if units:
        shown.append(np.sqrt(of_images))
    parts = [
        (expected * factor, freedom)
        for (expected, freedom), factor in zip(spread.parts(seeds), shown, strict=True)
    ]
    return _rates(case, spread.error(seeds) * random.standard_normal(draws), parts)


def _variance(random: np.random.Generator, freedom: int, draws: int) -> Any:
    """Draw estimates of a variance of 1."""
    return random.chisquare(freedom, draws) / freedom


def _rates(case: Case, error: Any, parts: list[tuple[Any, Any]]) -> Rates:
    """Count verdicts, from simulated mean differences and their standard errors."""
    single, corrected, alike = (
        half_width(parts, p) for p in (SIGNIFICANT, SIGNIFICANT / case.claims, 2 * SIGNIFICANT)
    )

    def equivalent(difference: float) -> float:
        found = np.abs(difference + error)
        return float(np.mean((found + alike < case.margin) & (found <= corrected)))

    def seen(difference: float) -> float:
        return float(np.mean(difference + error > corrected))

    return Rates(
        float(np.mean(np.abs(error) > single)),
        equivalent(case.margin),
        seen(case.margin),
        seen(2 * case.margin),
        equivalent(0.0),
    )


def table(groups: Sequence[Group], seed: int = 0) -> list[tuple[str, list[Rates]]]:
    """Return each claim's rates, by number of seeds and as planned."""
    found, random = cases(groups), np.random.default_rng(seed)
    rows = [(str(seeds), [rates(case, seeds, random) for case in found]) for seeds in SEEDS]
    return [*rows, ("as planned", [planned_rates(case, random) for case in found])] if found else []


def section(groups: Sequence[Group]) -> str:
    """Return the table as Markdown with its text; empty if no claim has two seeds."""
    rows = table(groups)
    if not rows:
        return ""
    lines = [f"| seeds | {' | '.join(COLUMNS)} |", "|---" * (1 + len(COLUMNS)) + "|"]
    for seeds, of_claims in rows:
        shares = [[getattr(one, column.name) for one in of_claims] for column in fields(Rates)]
        wrong = [f"{100 * np.mean(of):.1f} % (at most {100 * max(of):.0f} %)" for of in shares[:2]]
        right = [f"{100 * np.mean(of):.0f} %" for of in shares[2:]]
        lines.append(f"| {' | '.join([seeds, *wrong, *right])} |")
    return (
        SECTION.format(claims=len(rows[0][1]), draws=DRAWS, least=LEAST, largest=LARGEST, pilot=PILOT)
        + "\n".join(lines)
        + "\n"
    )
