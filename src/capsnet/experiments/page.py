"""Records of experiments → docs/results.md and its figures. Every number comes from a record."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import isfinite
from pathlib import Path
from statistics import mean

from capsnet._support.files import write_atomically, write_text
from capsnet.experiments import error_rates
from capsnet.experiments.comparison import answer
from capsnet.experiments.figures import by_variant
from capsnet.experiments.findings import findings
from capsnet.experiments.recipe import Experiment, Measure, Scale
from capsnet.experiments.recipes import EXPERIMENTS
from capsnet.experiments.record import Record, read_records
from capsnet.experiments.record_groups import SHOWN, Group, groups
from capsnet.experiments.statistics import Estimate, estimate, paired_difference
from capsnet.experiments.verdicts import Judgement, judgements, told, told_margin

INTRODUCTION = """\
# Results

Written by `capsnet report --results` from the records of `capsnet reproduce`; nothing here is typed by hand.

Every number is of the last step's model, never of the best epoch. Where models are compared at equal error on what is
familiar, training ends at the first step that is seen to have it on the familiar test set. "±" is the standard
deviation over seeds. [How often verdicts err](#how-often-verdicts-err) stands at the end.

"""
#: What intervals and verdicts mean.
INTERVALS = """\
**Intervals** are 95 % intervals, each by itself, not corrected for their number. Those of errors with several seeds are
about other trainings and other images like these at once: Student's interval over seeds and that over test images are
joined, their halves adding up as squares (MOVER; Zou and Donner 2008), so that it is never narrower than that over
seeds, and that of a mean error covers Wilson's; differences are paired by seed and by image. Measures that have no
answers to count, such as R², have Student's interval over seeds. With one seed they are about other images and this one
training, and say nothing about other seeds: over test images Wilson's, and for differences Wald's of the paired
answers. Where many test images show the same thing, as the views of one toy do, they are not independent, and toys are
counted in their place, each weighing as many images as it has, so that the interval lies around the error that is told.

**Verdicts.** Each claim has a margin: the smallest difference that would matter to a user. Margins stand in the
recipes, with a reason. They were fixed without regard to the verdicts, but after the runs shown here; later runs are
judged by margins that were fixed before them.

- *supported* or *contradicted*: p is at most 0.05 after Holm's correction over the claims of the same experiment and
  scale that the records can decide. p is the two-sided p-value of no difference, of the test that belongs to the
  interval; with one seed and no toys it is that of McNemar's exact test over images. If the difference is also shown
  to be smaller than the margin, "but smaller than what matters" is added.
- *equivalent*: otherwise, if the 90 % interval of the difference lies within the margin on both sides. These are two
  one-sided tests at 5 %, each claim by itself. Over images the interval is computed as if there were two more, one
  that only ours and one that only theirs gets wrong, so that few images on which nothing differs do not show equality.
- *undecided*: otherwise, even where the 95 % interval lies on one side of zero.

Nothing is corrected across experiments: some share trainings, and the same difference may get another word where it
stands beside fewer claims. The word of one seed ends in "in this one run".

**Seconds** are of training, without evaluations and saves, and of the fastest run: the machines did other things at the
same time, so that a mean would tell of those.
"""
#: What the summary is about.
FOUND = """\
Small networks, trained for minutes on 2 cores, beside controls with the same data, steps and batches. *Better* and
*worse* are beyond chance, *no difference that matters* is shown by two one-sided tests, *undecided* is the rest.
"""
QUICK = """\
Quick runs use narrow networks and short training, as each row says. They are for the comparison of capsules with
controls treated in the same way, and are not to be compared with the paper's numbers.
"""


def write_results(results: Path, target: Path) -> list[str]:
    """Write a page of all records of a results folder, and its figures into images/ beside it.

    Args:
        results: what `capsnet reproduce --out` wrote.
        target: the Markdown file, docs/results.md.

    Returns:
        What was left out, one line for each experiment and scale that has such records; the page says it too.

    Raises:
        CapsnetError: there are no records or a broken one; the page cannot be written.
    """
    found = groups(read_records(results))
    parts = [INTRODUCTION]
    if summary := findings(found):
        parts.append(f"## What was found\n\n{FOUND}\n{summary}\n")
    parts.append(f"## How to read the numbers\n\n{INTERVALS}")
    for scale in SHOWN:
        if table := overview(found, scale):
            parts += [f"## Overview: {scale} scale\n", *([QUICK] if scale == "quick" else []), table + "\n"]
    if missing := [name for name in EXPERIMENTS if name not in {group.experiment.name for group in found}]:
        parts.append(f"Experiments of which there is no record: {', '.join(missing)}.\n")
    for name in dict.fromkeys(group.experiment.name for group in found):
        own = [group for group in found if group.experiment.name == name]
        parts.append(_heading(own[0].experiment))
        parts += [_section(group, target.parent / "images") for group in own]
    parts.append(error_rates.section(found))
    parts.append(_machines([record for group in found for record in group.records]))
    write_text(target, "\n".join(parts))
    return [f"{group.experiment.name}: {line}" for group in found if (line := group.left_out())]


def write_comparison(compared: Group, target: Path) -> Path:
    """Write a comparison's page: the answer, the table, the verdicts and a figure, in images/ beside it.

    Args:
        compared: by `capsnet.experiments.comparison.compare`.
        target: the Markdown file.

    Returns:
        The file.

    Raises:
        CannotWrite: the page cannot be written.
    """
    experiment = compared.experiment
    parts = [
        f"# {experiment.title}\n",
        f"**{answer(judgements(compared))}**\n",
        f"{experiment.protocol}\n",
        INTERVALS,
        _section(compared, target.parent / "images"),
        _machines(compared.records),
    ]
    write_text(target, "\n".join(parts))
    return target


def overview(found: Sequence[Group], scale: Scale) -> str:
    """One scale's table: a row for each experiment's headline, against the best of its controls.

    The paper's numbers stand in the full scale's table only.
    """
    full = scale == "full"
    head = [
        "experiment",
        "measure",
        *(["paper"] if full else []),
        "ours",
        "control",
        "ours − control",
        "seeds",
    ]
    rows = []
    for group in (group for group in found if group.scale == scale and group.records):
        measure = group.experiment.measures[0]
        for name in group.experiment.headlines or (group.records[0].variant,):
            ours = estimate(group.of(name), measure.key)
            if ours is None:
                continue
            control, theirs = best_control(group, name, measure)
            difference = (
                paired_difference(group.of(name), group.of(control), measure.key) if control else None
            )
            rows.append(
                [
                    ", ".join(
                        filter(
                            None,
                            (f"[{group.experiment.name}](#{anchor(group.experiment)})", name, group.label),
                        )
                    ),
                    measure.title + (", %" if measure.percent else ""),
                    *([measure.published.get(name, "–")] if full else []),
                    shown_estimate(ours, measure),
                    f"{shown_estimate(theirs, measure)} ({control})" if theirs else "–",
                    told(difference, measure) if difference else "–",
                    str(ours.seeds),
                    "; ".join(group.deviations()) or "none",
                ]
            )
    return _table([*head, "deviations"], rows) if rows else ""


def best_control(group: Group, ours: str, measure: Measure) -> tuple[str | None, Estimate | None]:
    """The control that does best among those that the headline is compared with."""
    rivals = [c.against for c in group.experiment.claims if (c.ours, c.measure) == (ours, measure.key)]
    controls = [name for name in rivals if any(record.control for record in group.of(name))] or rivals
    found = {name: value for name in controls if (value := estimate(group.of(name), measure.key)) is not None}
    if not found:
        return None, None
    sign = -1 if measure.better == "higher" else 1
    best = min(found, key=lambda name: sign * found[name].mean)
    return best, found[best]


def _heading(experiment: Experiment) -> str:
    return f"## {_title(experiment)}\n\n**Source.** {experiment.source}.\n\n**Protocol.** {experiment.protocol}\n"


def _section(group: Group, images: Path) -> str:
    experiment, scale = group.experiment, group.scale
    measures = [m for m in experiment.measures if any(r.value(m.key) is not None for r in group.records)]
    published = [m for m in measures if m.published and scale == "full"]
    head = [
        "variant",
        "what it is",
        *(f"{m.title}{', %' if m.percent else ''}" for m in measures),
        *(f"paper: {m.title}, %" for m in published),
        "seeds",
        "parameters",
        "multiply-adds",
        "steps",
        "seconds, fastest run",
    ]
    rows = []
    for name, runs in by_variant(group.records).items():
        values = [estimate(runs, m.key) for m in measures]
        rows.append(
            [
                name,
                runs[0].about,
                *(
                    shown_estimate(value, m, interval=True) if value else "–"
                    for value, m in zip(values, measures, strict=True)
                ),
                *(m.published.get(name, "–") for m in published),
                str(len(runs)),
                f"{runs[0].parameters:,}",
                f"{runs[0].multiply_adds:,}",
                f"{mean(run.steps for run in runs):,.0f}",
                f"{min(run.seconds for run in runs):,.0f}",
            ]
        )
    title = ", ".join(filter(None, (f"{experiment.name}, {scale} scale", group.label)))
    parts = [f"### {title}\n", *_left_out(group)]
    if not group.records:
        return "\n".join(parts)
    parts.append(_table(head, rows) + "\n")
    if deviations := group.deviations():
        parts.append("**Deviations.** " + "; ".join(deviations) + ".\n")
    if single := _over_what(group):
        parts.append(f"**Intervals.** {single}\n")
    parts.append("**Data.** " + " ".join(dict.fromkeys(record.provenance for record in group.records)) + "\n")
    if found := judgements(group):
        parts.append("**What matters.** " + "; ".join(dict.fromkeys(map(_margin, found))) + ".\n")
        parts.append("**Verdicts.**\n\n" + "\n".join(judgement.line for judgement in found) + "\n")
    parts += [note + "\n" for note in experiment.notes(group.records)]
    for picture in experiment.figures(group.records):
        path = images / f"results-{'-'.join([picture.name, scale, *_words(group.label)])}.png"
        write_atomically(path, partial(_write, picture.png))
        alt = " ".join(picture.alt.split()).replace("]", ")").replace("[", "(")
        parts.append(f"![{alt}]({images.name}/{path.name})\n\n*{picture.caption}*\n")
    return "\n".join(parts)


def _margin(judgement: Judgement) -> str:
    """The margin of a claim, and why it is that."""
    margin, measure = judgement.claim.margin, judgement.measure
    return f"{measure.title}: {told_margin(margin, measure)} ({margin.why})"


def _left_out(group: Group) -> list[str]:
    parts = []
    if stale := group.left_out():
        parts.append(f"**Not shown.** {stale}\n")
    if names := group.not_run():
        parts.append(f"**Not run.** Of the recipe's variants: {', '.join(names)}.\n")
    return parts


def _over_what(group: Group) -> str:
    """Where test images show a few things again and again: what intervals are over."""
    shows = group.experiment.shows
    tests = [(name, test, test.group_numbers()) for run in group.records for name, test in run.tests.items()]
    if shows is None or not tests:
        return ""
    lines = [
        f"Over {len(set(numbers.tolist()))} {shows} in {test.n:,} images ({name})."
        if numbers is not None
        else f"Over {test.n:,} images ({name}) as if they were independent, so too narrow: the record does not say "
        f"which of a few {shows} each of them shows."
        for name, test, numbers in tests
    ]
    return " ".join(dict.fromkeys(lines))


def _machines(records: Sequence[Record]) -> str:
    lines = []
    for record in records:
        about = record.environment
        machine = (
            about.get("gpu")
            if record.device == "cuda"
            else f"{about['processor']}, {about['threads']} thread{'s' * (about['threads'] > 1)}"
        )
        versions = f"torch {about['versions'].get('torch')}, capsnet {about['capsnet']}"
        code = about.get("commit") or f"code {record.code}"
        lines.append(f"- {record.experiment}, {record.scale}: {machine}; {versions}; {code}")
    return "## Machines and versions\n\n" + "\n".join(dict.fromkeys(lines)) + "\n"


def shown_estimate(value: Estimate, measure: Measure, interval: bool = False) -> str:
    """Mean ± deviation over the seeds, in the measure's units, and the interval in brackets if asked for."""
    factor, digits = (100 if measure.percent else 1), measure.digits
    text = f"{factor * value.mean:.{digits}f}"
    if isfinite(value.spread):
        text += f" ± {factor * value.spread:.{digits}f}"
    if interval and (told := shown_interval(value, measure)):
        text += f" ({told})"
    return text


def shown_interval(value: Estimate, measure: Measure) -> str:
    """Both ends, in the measure's units; nothing where it has no interval. Shares lie between 0 and 100 %."""
    if not (isfinite(value.low) and isfinite(value.high)):
        return ""
    ends = (value.low, value.high)
    if measure.percent:
        ends = (100 * max(value.low, 0), 100 * min(value.high, 1))
    return " to ".join(f"{end:.{measure.digits}f}" for end in ends)


def _title(experiment: Experiment) -> str:
    return f"{experiment.number}. {experiment.title}"


def _words(label: str) -> list[str]:
    """For the name of a file."""
    return label.replace(",", "").split()


def anchor(experiment: Experiment) -> str:
    """The heading's anchor, as GitHub makes it."""
    kept = "".join(letter for letter in _title(experiment).lower() if letter.isalnum() or letter in " -_")
    return kept.replace(" ", "-")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _write(content: bytes, path: Path) -> None:
    path.write_bytes(content)
