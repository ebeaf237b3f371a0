"""Write docs/results.md and its figures from the records."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from statistics import mean

from capsnet._support.files import write_bytes, write_text
from capsnet.experiments import error_rates
from capsnet.experiments.comparison import answer
from capsnet.experiments.figures import by_variant, on_the_way
from capsnet.experiments.findings import findings
from capsnet.experiments.recipe import Experiment, Measure, Scale
from capsnet.experiments.recipes import EXPERIMENTS
from capsnet.experiments.record import Record, read_records
from capsnet.experiments.record_groups import SHOWN, Group, groups
from capsnet.experiments.statistics import Estimate, estimate, paired_difference
from capsnet.experiments.verdicts import Judgement, judgements, told, told_margin

INTRODUCTION = """\
# Results

`capsnet report --results results` wrote this page from the records of `capsnet reproduce`. Nothing is typed by hand.

Every number is of the model after the last step, or of the weights' average there if the deviations say so; never of
the best epoch. Some experiments compare models at equal error on familiar data. There, training stops at the first
evaluation at which the model reaches this error on the familiar test set. "±" is the standard deviation over seeds. A
section near the end says [how often verdicts err](#how-often-verdicts-err).

"""
#: The meaning of intervals and verdicts.
INTERVALS = """\
**Intervals** are 95 % intervals. They are not corrected for multiple comparisons.

- *Errors, several seeds.* The interval covers the variation over other trainings and over other images of this kind.
  It joins Student's interval over seeds with the interval over test images; the squares of their half-widths add up
  (MOVER; Zou and Donner 2008). It is never narrower than the interval over seeds, and the interval of a mean error
  contains Wilson's. Differences are paired by seed and by image.
- *Measures without counted answers,* such as R²: Student's interval over seeds.
- *One seed.* The interval covers other images for this one training, and says nothing about other seeds. It is Wilson's
  for an error, and Wald's interval of the paired answers for a difference.
- *Repeated objects.* Test images of the same object, for example views of one toy, are not independent. The interval
  is then over toys instead of images. Toys are weighted by their number of images, so that the interval is centred on
  the reported error.

**Verdicts.** Each claim has a margin: the smallest difference that would matter to a user. The recipes give the
margins and their reasons. All margins were fixed without regard to the verdicts. Where an experiment names the commit
that fixed them, its runs were measured after that commit, though a training that experiments share may be older; the
other runs are older than their margins.

- *supported* or *contradicted*: p is at most 0.05 after Holm's correction over the claims of the same experiment and
  scale that the records can decide. p is the two-sided p-value of "no difference", from the test that belongs to the
  interval; with one seed and no repeated objects it is McNemar's exact test over images. If the difference is also
  shown to be smaller than the margin, the verdict adds "but smaller than what matters".
- *equivalent*: otherwise, if the 90 % interval of the difference lies within the margin on both sides. This is the pair
  of one-sided tests at 5 %, without correction. Over images, the interval is computed with two extra images: one that
  only our model gets wrong, and one that only the other model gets wrong. Without them, a few images without any
  difference would show equality.
- *undecided*: otherwise, even if the 95 % interval lies on one side of zero. The line then gives half of the 95 %
  interval over seeds alone and over the test set alone; their squares add up. More seeds narrow the first, and the
  second only a little; more test images or objects narrow the second.

There is no correction across experiments. Some experiments share trainings, so the same difference can get another
verdict in an experiment with fewer claims. A verdict from one seed ends in "in this one run".

**Seconds** are the training time of the fastest run, without evaluations and checkpoints. The machines were shared, so
a mean would mislead.
"""
#: The introduction of the summary.
FOUND = """\
Small networks, trained for minutes on 2 cores, beside controls with the same data and batches, and the same steps or
the same error on familiar data. *Better* and *worse* are beyond chance. *No difference that matters* is shown by two
one-sided tests. All else is *undecided*.
"""
QUICK = """\
Quick runs use narrow networks and short training, as the last column says. They compare capsules with controls that are
treated in the same way. Do not compare them with the paper's numbers.
"""


def write_results(results: Path, target: Path) -> list[str]:
    """Write the page of all records in a folder, and its figures beside it.

    Args:
        results: the folder given to `capsnet reproduce --out`.
        target: the Markdown file, docs/results.md.

    Returns:
        One line for each experiment and scale with records that are not shown. The page has these lines too.

    Raises:
        CapsnetError: there are no records, a record is damaged, or the page cannot be written.
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
        parts.append(f"Not run yet: {', '.join(missing)}.\n")
    for name in dict.fromkeys(group.experiment.name for group in found):
        own = [group for group in found if group.experiment.name == name]
        parts.append(_heading(own[0].experiment))
        parts += [_section(group, target.parent / "images") for group in own]
    parts.append(error_rates.section(found))
    parts.append(_machines([record for group in found for record in group.records]))
    write_text(target, "\n".join(parts))
    return [f"{group.experiment.name}: {line}" for group in found if (line := group.left_out())]


def write_comparison(compared: Group, target: Path) -> Path:
    """Write a comparison's page: answer, table, verdicts and a figure.

    Args:
        compared: the result of `capsnet.experiments.comparison.compare`.
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
    """Return one scale's table: each main variant against its best control.

    Only the table of the full scale has the paper's numbers.
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
    """Return the best control of a claim about `ours`, and its estimate."""
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
        "description",
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
    parts.append(f"**Learning rates.** {_rates(group.records)}\n")
    if single := _over_what(group):
        parts.append(f"**Intervals.** {single}\n")
    parts.append("**Data.** " + " ".join(dict.fromkeys(record.provenance for record in group.records)) + "\n")
    if found := judgements(group):
        margins = "; ".join(dict.fromkeys(map(_margin, found)))
        fixed = experiment.margins_commit if all(record.rate_errors for record in group.records) else None
        before = f" Fixed in commit {fixed}, before these runs were measured." if fixed else ""
        parts.append(f"**Margins.** {margins}.{before}\n")
        parts.append("**Verdicts.**\n\n" + "\n".join(judgement.line for judgement in found) + "\n")
    parts += [note + "\n" for note in experiment.notes(group.records)]
    for picture in [*experiment.figures(group.records), *on_the_way(experiment.name, group.records)]:
        path = images / f"results-{'-'.join([picture.name, scale, *_words(group.label)])}.png"
        write_bytes(path, picture.png)
        alt = " ".join(picture.alt.split()).replace("]", ")").replace("[", "(")
        parts.append(f"![{alt}]({images.name}/{path.name})\n\n*{picture.caption}*\n")
    return "\n".join(parts)


def _rates(records: Sequence[Record]) -> str:
    """Return which variants have which peak learning rate, and whether it was chosen."""
    names: dict[float, dict[str, None]] = {}
    for record in records:
        names.setdefault(record.training["learning_rate"], {})[record.variant] = None
    told = "; ".join(f"{rate:g} for {', '.join(names[rate])}" for rate in sorted(names, reverse=True))
    if len(names) == 1:
        told = f"{next(iter(names)):g} for all"
    tried = [record.rate_errors for record in records]
    if not all(tried):
        return f"Fixed in the recipe: {told}."
    rates = ", ".join(sorted({rate for errors in tried for rate in errors}, key=float))
    return f"Chosen for each variant on training images only, of {rates}: {told}."


def _margin(judgement: Judgement) -> str:
    """Return the margin of a claim and its reason."""
    margin, measure = judgement.claim.margin, judgement.measure
    return f"{measure.title}: {told_margin(margin, measure)} ({margin.why})"


def _left_out(group: Group) -> list[str]:
    parts = []
    if stale := group.left_out():
        parts.append(f"**Not shown.** {stale}\n")
    if names := group.not_run():
        parts.append(f"**Not run.** These variants of the recipe have no records: {', '.join(names)}.\n")
    return parts


def _over_what(group: Group) -> str:
    """Say what the intervals are over, for test sets with repeated objects."""
    shows = group.experiment.shows
    tests = [(name, test, test.group_numbers()) for run in group.records for name, test in run.tests.items()]
    if shows is None or not tests:
        return ""
    lines = [
        f"Over {len(set(numbers.tolist()))} {shows} in {test.n:,} images ({name})."
        if numbers is not None
        else f"Over {test.n:,} images ({name}) as if they were independent. They are too narrow, because the record "
        f"does not say which of the {shows} each image shows."
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
    """Format mean ± deviation over seeds, optionally with the interval."""
    factor, digits = (100 if measure.percent else 1), measure.digits
    text = f"{factor * value.mean:.{digits}f}"
    if isfinite(value.spread):
        text += f" ± {factor * value.spread:.{digits}f}"
    if interval and (told := shown_interval(value, measure)):
        text += f" ({told})"
    return text


def shown_interval(value: Estimate, measure: Measure) -> str:
    """Format an interval in the measure's unit; "" if there is none."""
    if not (isfinite(value.low) and isfinite(value.high)):
        return ""
    ends = (value.low, value.high)
    if measure.percent:
        ends = (100 * max(value.low, 0), 100 * min(value.high, 1))
    return " to ".join(f"{end:.{measure.digits}f}" for end in ends)


def _title(experiment: Experiment) -> str:
    return f"{experiment.number}. {experiment.title}"


def _words(label: str) -> list[str]:
    """Split a label into words for a file name."""
    return label.replace(",", "").split()


def anchor(experiment: Experiment) -> str:
    """Return the heading's anchor, in GitHub's format."""
    kept = "".join(letter for letter in _title(experiment).lower() if letter.isalnum() or letter in " -_")
    return kept.replace(" ", "-")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
