"""Draw the figures that several experiments share, with one colour per variant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite

import numpy as np

from capsnet.experiments.record import ON_THE_WAY, Record
from capsnet.experiments.statistics import estimate
from capsnet.report.style import (
    BLUE,
    FAINT,
    GREEN,
    INK,
    MUTED,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    Picture,
    new_figure,
    plain,
    png,
    text_font,
)

COLOURS = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY, INK, MUTED)


def by_variant(records: Sequence[Record]) -> dict[str, list[Record]]:
    """Group runs by variant, capsule networks before controls."""
    groups: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda record: record.control):
        groups.setdefault(record.variant, []).append(record)
    return groups


def dots(
    name: str,
    records: Sequence[Record],
    measure: str,
    title: str,
    percent: bool = True,
    shows: str | None = None,
    log: bool = False,
) -> Picture:
    """Draw one row per variant: seeds as dots, mean, and 95 % interval.

    `shows` names, for the caption, the things that several test examples show (for example "toys"). `log`: a
    logarithmic axis, for values that are all above 0.
    """
    groups = {
        variant: runs for variant, runs in by_variant(records).items() if estimate(runs, measure) is not None
    }
    factor = 100 if percent else 1
    figure = new_figure(6.4, 0.6 + 0.32 * max(1, len(groups)))
    axes = figure.add_subplot()
    over = ""
    for row, runs in enumerate(groups.values()):
        found = estimate(runs, measure)
        assert found is not None
        if found.unit:
            over = "test images" if found.unit == "images" else f"the {shows or 'objects'} in the test images"
        colour = ORANGE if runs[0].control else BLUE
        values = [factor * value for record in runs if (value := record.value(measure)) is not None]
        if isfinite(found.low) and isfinite(found.high):
            axes.plot(
                [factor * found.low, factor * found.high], [row, row], color=colour, alpha=0.3, linewidth=5
            )
        axes.plot(values, [row] * len(values), "o", color=colour, markersize=4)
        axes.plot([factor * found.mean], [row], "|", color=colour, markersize=13)
    axes.set_yticks(range(len(groups)), list(groups), **text_font())
    axes.invert_yaxis()
    plain(axes, x=title)
    axes.grid(axis="x", color=FAINT)
    if log:
        from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    about = "; ".join(
        f"{variant} {factor * found.mean:.2f}"
        for variant, runs in groups.items()
        if (found := estimate(runs, measure)) is not None
    )
    return Picture(
        name,
        png(figure),
        f"{title}: {about}",
        "Each dot is a seed, blue for capsule networks and orange for controls. The bar is the 95 % interval of the "
        f"mean, over seeds{f' and {over}' if over else ''}{f' (for a single run, over {over})' if over else ''}.",
    )


def curves(
    name: str,
    panels: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]],
    y: str,
    caption: str,
    log: bool = False,
) -> Picture:
    """Draw panels with a line per variant: panel title → variant → (x, y).

    The text after "|" in a panel's title is the label of its x axis.
    """
    columns = 2 if len(panels) == 4 else min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = new_figure(max(4.8, 3.2 * columns + 0.4), 2.7 * rows + 0.5)
    names = list(dict.fromkeys(variant for lines in panels.values() for variant in lines))
    handles = {}
    for number, (title, lines) in enumerate(panels.items()):
        axes = figure.add_subplot(rows, columns, number + 1)
        for variant, (x, values) in lines.items():
            again, place = divmod(names.index(variant), len(COLOURS))
            style = "o--" if again else "o-"
            (handles[variant],) = axes.plot(
                x, values, style, color=COLOURS[place], markersize=3, linewidth=1.4
            )
        top, _, below = title.partition("|")
        plain(axes, top.strip(), below.strip(), y if number % columns == 0 else "")
        axes.grid(color=FAINT)
        if log:
            from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

            axes.set_xscale("log")
            axes.set_yscale("log")
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
                axis.set_minor_formatter(NullFormatter())
    if len(handles) > 1:
        figure.legend(
            list(handles.values()),
            list(handles),
            loc="outside lower center",
            ncols=min(3 if columns > 1 else 2, len(handles)),  # as many as the width holds
            frameon=False,
            fontsize=8,
        )
    about = ", ".join(next(part.strip() for part in title.split("|") if part.strip()) for title in panels)
    shown = f"{y} against {about}" if y else about
    return Picture(
        name, png(figure), f"{shown}, with a line for each of {', '.join(names)}", caption, wide=True
    )


def on_the_way(name: str, records: Sequence[Record]) -> list[Picture]:
    """Draw the test error during training, if there are records of it: one training of each variant."""
    lines = {}
    for variant, runs in by_variant(records).items():
        seen = next((run.array(ON_THE_WAY) for run in runs if ON_THE_WAY in run.arrays), np.empty((0, 2)))
        steps, errors = seen[seen[:, 1] > 0].T  # an error of 0 has no place on a logarithmic axis
        if len(steps) > 1:
            lines[variant] = (steps.tolist(), (100 * errors).tolist())
    if not lines:
        return []
    caption = (
        "The error during training, of one training of each variant. No model was chosen by it: the tables are about "
        "the last step, or the step at which the target was reached."
    )
    return [curves(f"{name}-steps", {"| step": lines}, "test error, %", caption, log=True)]
