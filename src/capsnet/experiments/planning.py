"""What an experiment's claims still need: seeds, by the spread of those there are, and the minutes that they cost."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, median

from capsnet._support.errors import CapsnetError
from capsnet.experiments.recipe import Claim, Experiment, Measure, Variant
from capsnet.experiments.record import Record, record_path
from capsnet.experiments.record_groups import Group
from capsnet.experiments.running import Options, chosen_variants, existing
from capsnet.experiments.spread import (
    LEAST,
    MOST,
    PILOT,
    POWER,
    Spread,
    for_difference,
    for_equivalence,
    planned,
)
from capsnet.experiments.statistics import paired
from capsnet.experiments.verdicts import Judgement, in_unit, judgements, told_margin

#: A claim with a corrected p of at most this needs no more seeds. To stop at so strict a p leaves the rate of false
#: verdicts as it is (Haybittle and Peto).
SETTLED = 0.001

#: A variant and a seed.
Run = tuple[str, int]


@dataclass(frozen=True)
class Needs:
    """Seeds that decide a claim with a chance of `POWER`; `MOST` + 1 stands for more."""

    margin: int
    """If the difference is as large as the margin."""
    equivalence: int
    """If there is none."""
    seen: int
    """If it is as large as the one seen so far."""


@dataclass(frozen=True)
class Prospect:
    """A claim, what is known of it, and what it needs."""

    claim: Claim
    measure: Measure
    judgement: Judgement | None
    """None without records of a common seed."""
    needs: Needs | None
    """None with fewer than two common seeds."""
    planned: int
    """Seeds to run for it in all; see `spread.planned`."""
    missing: tuple[Run, ...]
    """Runs up to the planned seeds that have no record; none if it is settled."""
    minutes: float
    """What the missing runs cost, one after the other."""

    @property
    def line(self) -> str:
        """Return all of it as one line."""
        claim, found, needs = self.claim, self.judgement, self.needs
        text = f"- {claim.text} ({claim.ours} − {claim.against}, {self.measure.title}): "
        if found is None:
            text += "no seed of both"
        else:
            text += f"{found.words} with {_counted(found.difference.seeds, 'seed')}"
            if _is_settled(found):
                return f"{text}; settled, p is below {SETTLED:g}."
        if needs is not None and found is not None:
            seen = in_unit(found.difference.mean, self.measure) + " points" * self.measure.percent
            least = told_margin(claim.margin, self.measure)
            margin, equivalence, seen_so_far = map(_seeds, (needs.margin, needs.equivalence, needs.seen))
            text += (
                f". Seeds for a chance of {100 * POWER:.0f} %: {margin} if the difference is {least}, the least that "
                f"matters; {equivalence} if there is none; {seen_so_far} if it is as seen, {seen}"
            )
        text += f". Planned: {self.planned}"
        return text + (f", {told_minutes(self.minutes)} more." if self.missing else ", which are there.")


@dataclass(frozen=True)
class Plan:
    """The seeds that all claims of an experiment need."""

    prospects: Sequence[Prospect]
    minutes: Mapping[str, float]
    """Of a training, by variant; empty without any record."""

    @property
    def runs(self) -> list[Run]:
        """Return the missing runs in the order in which they are run.

        First come those that plans are made from, then those of the claim that costs the least, and so on. Runs that
        several claims need cost only the first of them.
        """
        runs: dict[Run, None] = {}
        for seed in range(PILOT):
            runs |= {run: None for prospect in self.prospects for run in prospect.missing if run[1] == seed}
        left = list(self.prospects)
        while left:
            cheapest = min(
                left, key=lambda prospect: self.cost(run for run in prospect.missing if run not in runs)
            )
            left.remove(cheapest)
            runs |= dict.fromkeys(cheapest.missing)
        return list(runs)

    def cost(self, runs: Iterable[Run]) -> float:
        """Return the minutes of runs, one after the other."""
        return sum(self.minutes.get(name, 0.0) for name, _ in runs)

    @property
    def lines(self) -> list[str]:
        """Return a line for each claim, and one for all."""
        runs = self.runs
        total = (
            f"All together: {_counted(len(runs), 'training')}, {told_minutes(self.cost(runs))} one after the other."
            if runs
            else "All planned seeds are there."
        )
        return [*(prospect.line for prospect in self.prospects), total]


def plan(experiment: Experiment, options: Options) -> Plan:
    """Return the seeds that the chosen variants' claims need, by `options.out`.

    Raises:
        CapsnetError: no such claim; records of other settings; as `chosen_variants`.
    """
    variants = chosen_variants(experiment, options)
    names = [variant.name for variant in variants]
    claims = [claim for claim in experiment.claims if {claim.ours, claim.against} <= set(names)]
    if not claims:
        raise CapsnetError(
            f"{experiment.name} has no claim that compares two of {', '.join(names)}; plan other variants"
        )
    records = [record for variant in variants for record in _records_of(experiment, variant, options)]
    group = Group(experiment, options.scale, records)
    known = {judgement.claim: judgement for judgement in judgements(group)}
    minutes = _minutes_each(names, records)
    return Plan(
        [_prospect(claim, group, known.get(claim), len(claims), minutes) for claim in claims], minutes
    )


def told_minutes(minutes: float) -> str:
    """Format a time in minutes."""
    return "less than a minute" if minutes < 1 else _counted(round(minutes), "minute")


def _prospect(
    claim: Claim, group: Group, judgement: Judgement | None, claims: int, minutes: Mapping[str, float]
) -> Prospect:
    measure = next(measure for measure in group.experiment.measures if measure.key == claim.measure)
    margin = claim.margin.size
    ours, against = group.of(claim.ours), group.of(claim.against)
    pair = paired(ours, against, claim.measure)
    needs = None
    if pair is not None and judgement is not None and len(pair.runs) > 1:
        spread, seen = Spread.of(pair), abs(judgement.difference.mean)
        needs = Needs(
            margin=for_difference(spread, margin, claims),
            equivalence=for_equivalence(spread, margin),
            seen=for_difference(spread, seen, claims),
        )
    first, others = ([run for run in side if run.seed < PILOT] for side in (ours, against))
    pilot = paired(first, others, claim.measure)
    seeds = LEAST
    if pilot is not None and len(pilot.runs) == PILOT:
        seeds = planned(Spread.of(pilot), margin, claims)
    missing: list[Run] = []
    if judgement is None or not _is_settled(judgement):
        there = {(run.variant, run.seed) for run in (*ours, *against)}
        asked = [(name, seed) for seed in range(seeds) for name in (claim.ours, claim.against)]
        missing = [run for run in asked if run not in there]
    cost = sum(minutes.get(name, 0.0) for name, _ in missing)
    return Prospect(claim, measure, judgement, needs, seeds, tuple(missing), cost)


def _is_settled(judgement: Judgement) -> bool:
    return judgement.difference.seeds > 1 and judgement.corrected <= SETTLED


def _records_of(experiment: Experiment, variant: Variant, options: Options) -> list[Record]:
    """Read the records of a variant, in the order of their seeds."""
    name = record_path(options.out, experiment.name, variant.name, options.scale, 0).name
    pattern = re.compile(re.escape(name.removesuffix("0.json")) + r"(\d+)\.json")
    folder = options.out / experiment.name
    files = [file.name for file in folder.iterdir()] if folder.is_dir() else []
    seeds = sorted(int(match[1]) for file in files if (match := pattern.fullmatch(file)))
    found = [existing(experiment, variant, seed, options) for seed in seeds]
    return [record for record in found if record is not None]


def _minutes_each(variants: Sequence[str], records: Sequence[Record]) -> dict[str, float]:
    """Return each variant's minutes: the median of its records, else the others' mean."""
    seconds: dict[str, list[float]] = {}
    for record in records:
        seconds.setdefault(record.variant, []).append(record.seconds)
    known = {name: median(values) / 60 for name, values in seconds.items()}
    return {name: known.get(name, mean(known.values())) for name in variants} if known else {}


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' * (count != 1)}"


def _seeds(count: int) -> str:
    return f"more than {MOST}" if count > MOST else str(count)
