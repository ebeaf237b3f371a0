"""README's table of results at the quick scale, from the records: `python -m benchmarks.results_table results`.

One row for the headline of every experiment, against the best of its controls, whichever way it fell; and how often
each verdict was given over all claims. Nothing is chosen by hand.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from capsnet.experiments.page import anchor, best_control, shown_estimate
from capsnet.experiments.record import Record, read_records
from capsnet.experiments.record_groups import Group, groups
from capsnet.experiments.statistics import estimate
from capsnet.experiments.verdicts import Judgement, judgements


def table(records: Sequence[Record]) -> str:
    """Markdown: the rows, an empty line, and the count."""
    lines = ["| | measure | capsules | best control | verdict |", "|---|---|---|---|---|"]
    words: Counter[str] = Counter()
    for group in groups(records):
        if group.scale != "quick" or not group.records or group.label:
            continue
        found = judgements(group)
        words.update(judgement.word for judgement in found)
        for name in group.experiment.headlines or (group.records[0].variant,):
            if row := _row(group, name, found):
                lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |")
    ordered = sorted(words.items(), key=lambda item: -item[1])
    counted = "; ".join(f"{word} ({count})" for word, count in ordered)
    return "\n".join([*lines, "", f"Over all {words.total()} claims of these experiments: {counted}."])


def _row(group: Group, name: str, found: Sequence[Judgement]) -> list[str]:
    measure = group.experiment.measures[0]
    ours = estimate(group.of(name), measure.key)
    control, theirs = best_control(group, name, measure)
    if ours is None or control is None or theirs is None:
        return []
    word = next(
        (
            j.words
            for j in found
            if (j.claim.ours, j.claim.against, j.measure.key) == (name, control, measure.key)
        ),
        "–",
    )
    unit = " %" if measure.percent else ""
    title = group.experiment.title + (f": {name}" if group.experiment.headlines else "")
    return [
        f"[{title}](docs/results.md#{anchor(group.experiment)})",
        measure.title,
        shown_estimate(ours, measure) + unit,
        f"{shown_estimate(theirs, measure)}{unit} ({control})",
        word,
    ]


if __name__ == "__main__":
    print(table(read_records(Path(sys.argv[1]))))
