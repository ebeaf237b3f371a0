"""What became of an experiment's claims: verdicts that survive the number of claims, in words and numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Literal

from capsnet.experiments.recipe import Claim, Margin, Measure
from capsnet.experiments.record_groups import Group
from capsnet.experiments.statistics import Difference, paired_difference

#: A difference needs a corrected p of at most this.
SIGNIFICANT = 0.05

Verdict = Literal[
    "supported",
    "equivalent",
    "undecided",
    "contradicted",
    "supported, in this one run",
    "equivalent, in this one run",
    "contradicted, in this one run",
]


def holm(values: Sequence[float]) -> list[float]:
    """Correct p-values for their number (Holm 1979), in the same order.

    The chance that any of them is so where there is no difference at all is then at most α.
    """
    corrected = [0.0] * len(values)
    least = 0.0
    for place, index in enumerate(sorted(range(len(values)), key=lambda k: values[k])):
        least = max(least, min(1.0, (len(values) - place) * values[index]))
        corrected[index] = least
    return corrected


def verdict(difference: Difference, better: Literal["lower", "higher"], p: float, margin: float) -> Verdict:
    """Return the verdict. A difference beyond chance decides first, however small.

    Without one, the two models are equivalent if the difference is shown to be smaller than the margin. Verdicts on
    one seed end in "in this one run".

    Args:
        difference: ours minus theirs.
        better: which way is better.
        p: the difference's, corrected for the claims beside it (`holm`).
        margin: the smallest difference that matters.
    """
    one = difference.seeds == 1
    if p <= SIGNIFICANT and difference.mean != 0:
        if (difference.mean < 0) == (better == "lower"):
            return "supported, in this one run" if one else "supported"
        return "contradicted, in this one run" if one else "contradicted"
    if difference.within(margin):
        return "equivalent, in this one run" if one else "equivalent"
    return "undecided"


@dataclass(frozen=True)
class Judgement:
    """A claim and its verdict."""

    claim: Claim
    measure: Measure
    difference: Difference
    """Ours minus theirs; its intervals are not corrected."""
    p: float
    """Of no difference, of this claim by itself."""
    corrected: float
    """The same by Holm's correction over the group's claims."""
    word: Verdict
    claims: int
    """How many were corrected for."""
    shows: str | None
    """What groups of test images are called."""

    @property
    def is_small(self) -> bool:
        """Return whether a difference was found that is smaller than the margin."""
        found = self.word.startswith(("supported", "contradicted"))
        return found and self.difference.within(self.claim.margin.size)

    @property
    def words(self) -> str:
        """Return the verdict in words, with its limits."""
        return f"{self.word}, but smaller than what matters" if self.is_small else self.word

    @property
    def line(self) -> str:
        """Return the claim with its verdict as a line of Markdown."""
        unit = " points" if self.measure.percent else ""
        text = (
            f"- {self.claim.text}: **{self.words}**. {self.claim.ours} − {self.claim.against}, {self.measure.title}: "
            f"{told(self.difference, self.measure)}{unit}, paired over {over(self.difference, self.shows)}; "
            f"p {_p(self.p, '= ')}"
        )
        if self.claims > 1:
            text += f", after Holm's correction {_p(self.corrected)}"
        if self.is_small or self.word.startswith("equivalent"):
            low, high = (
                in_unit(end, self.measure) for end in (self.difference.low_90, self.difference.high_90)
            )
            text += f"; 90 % interval {low} to {high}, within ±{told_margin(self.claim.margin, self.measure)}"
        if self.word == "undecided" and self.difference.halves is not None:
            seeds, tests = (in_unit(half, self.measure).removeprefix("+") for half in self.difference.halves)
            text += f"; the seeds alone leave ±{seeds}, the {_unit_name(self.difference, self.shows)} alone ±{tests}"
        return text + "."


def judgements(group: Group) -> list[Judgement]:
    """Judge each claim that the records can decide, in the recipe's order."""
    measures = {measure.key: measure for measure in group.experiment.measures}
    tested = []
    for claim in group.experiment.claims:
        measure = measures[claim.measure]
        difference = paired_difference(group.of(claim.ours), group.of(claim.against), claim.measure)
        if difference is not None and measure.better is not None:
            tested.append((claim, measure, measure.better, difference))
    corrected = holm([difference.p for *_, difference in tested])
    return [
        Judgement(
            claim,
            measure,
            difference,
            difference.p,
            p,
            verdict(difference, better, p, claim.margin.size),
            len(tested),
            group.experiment.shows,
        )
        for (claim, measure, better, difference), p in zip(tested, corrected, strict=True)
    ]


def _unit_name(difference: Difference, shows: str | None = None) -> str:
    """Name what of the test set was paired, such as "test images"; empty if only runs were."""
    return {None: "", "images": "test images", "groups": shows or "objects"}[difference.unit]


def over(difference: Difference, shows: str | None = None) -> str:
    """Name what was paired, such as "3 seeds and 10,000 test images"."""
    unit = _unit_name(difference, shows)
    units = f"{difference.units:,} {unit}" if unit else ""
    if difference.seeds == 1:
        return f"{units}, one seed"
    return " and ".join(filter(None, (f"{difference.seeds} seeds", units)))


def told(difference: Difference, measure: Measure) -> str:
    """Format a difference with its interval, in the measure's unit."""
    text = in_unit(difference.mean, measure)
    if isfinite(difference.low):
        text += f" ({in_unit(difference.low, measure)} to {in_unit(difference.high, measure)})"
    return text


def told_margin(margin: Margin, measure: Measure) -> str:
    """Format the size of a margin, such as "0.10 points"."""
    return in_unit(margin.size, measure).removeprefix("+") + " points" * measure.percent


def in_unit(value: float, measure: Measure) -> str:
    """Format a difference in the measure's unit, with its sign."""
    return f"{100 * value if measure.percent else value:+.{measure.digits}f}"


def _p(p: float, equals: str = "") -> str:
    return "< 0.0001" if p < 0.0001 else f"{equals}{p:.2g}"
