"""What became of an experiment's claims: differences, p-values, and words that survive the number of claims."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

from capsnet.experiments.recipe import Measure
from capsnet.experiments.record_groups import Group
from capsnet.experiments.statistics import Difference, Verdict, holm, paired_difference, verdict


@dataclass(frozen=True)
class Judgement:
    """One claim and what became of it."""

    text: str
    """The claim."""
    ours: str
    against: str
    """Variants."""
    measure: Measure
    difference: Difference
    """Ours minus theirs; its interval is not corrected."""
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
    def line(self) -> str:
        """All of it, as the page has it."""
        unit = " points" if self.measure.percent else ""
        corrected = f", after Holm's correction {_p(self.corrected)}" if self.claims > 1 else ""
        return (
            f"- {self.text}: **{self.word}**. {self.ours} − {self.against}, {self.measure.title}: "
            f"{told(self.difference, self.measure)}{unit}, paired over {over(self.difference, self.shows)}; "
            f"p {_p(self.p, '= ')}{corrected}."
        )


def judgements(group: Group) -> list[Judgement]:
    """What became of each claim that the records can decide, in the recipe's order, whichever way it fell."""
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
            claim.text,
            claim.ours,
            claim.against,
            measure,
            difference,
            difference.p,
            p,
            verdict(difference, better, p),
            len(tested),
            group.experiment.shows,
        )
        for (claim, measure, better, difference), p in zip(tested, corrected, strict=True)
    ]


def over(difference: Difference, shows: str | None = None) -> str:
    """What was paired: "3 seeds and 10,000 test images". `shows`: what groups of images are called."""
    unit = {None: "", "images": "test images", "groups": shows or "groups"}[difference.unit]
    units = f"{difference.units:,} {unit}" if unit else ""
    if difference.seeds == 1:
        return f"{units}, one seed"
    return " and ".join(filter(None, (f"{difference.seeds} seeds", units)))


def told(difference: Difference, measure: Measure) -> str:
    """A difference with its interval, in the measure's unit."""
    factor, digits = (100 if measure.percent else 1), measure.digits
    text = f"{factor * difference.mean:+.{digits}f}"
    if isfinite(difference.low):
        text += f" ({factor * difference.low:+.{digits}f} to {factor * difference.high:+.{digits}f})"
    return text


def _p(p: float, equals: str = "") -> str:
    return "< 0.0001" if p < 0.0001 else f"{equals}{p:.2g}"
