"""Draw the training curves: loss, test error and speed."""

from __future__ import annotations

from math import isfinite
from typing import Any

import numpy as np

from capsnet.report.material import Material
from capsnet.report.style import (
    BLUE,
    FAINT,
    FONT,
    GREEN,
    INK,
    MUTED,
    ORANGE,
    PURPLE,
    RED,
    SMALL,
    Picture,
    new_figure,
    plain,
    png,
)

WIDTH, HEIGHT = 4.4, 3.1
#: Keys of a metrics line that are not parts of the loss.
OTHERS = {"step", "loss", "learning_rate", "images_per_second"}


def learning_curves(material: Material) -> list[Picture]:
    """Draw loss, test error and speed, each as one picture if its metrics exist."""
    train = [line for line in material.metrics if _number(line, "loss") is not None]
    tests = [line for line in material.metrics if _number(line, "test_error") is not None]
    pictures = []
    if train:
        pictures.append(_loss(material, train))
    if tests:
        pictures.append(_test_error(tests))
    if any(_number(line, "images_per_second") for line in train):
        pictures.append(_speed(material, train))
    return pictures


def duration(seconds: float) -> str:
    """Format seconds with a readable unit.

    >>> duration(45.2), duration(754), duration(7500)
    ('45 s', '12.6 min', '2.1 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _number(line: dict[str, Any], key: str) -> float | None:
    value = line.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        return None
    return float(value)


def _series(lines: list[dict[str, Any]], key: str, weight: float = 1.0) -> tuple[list[int], list[float]]:
    found = [(line["step"], value) for line in lines if (value := _number(line, key)) is not None]
    return [step for step, _ in found], [weight * value for _, value in found]


def _loss(material: Material, lines: list[dict[str, Any]]) -> Picture:
    figure = new_figure(WIDTH, HEIGHT)
    axes = figure.add_subplot()
    parts = sorted({key for line in lines for key in line if _number(line, key) is not None} - OTHERS)
    mark = "." if len(lines) < 3 else ""
    curves = [("loss", 1.0, "loss", INK)]
    for part, colour in zip(parts, (BLUE, ORANGE, GREEN, PURPLE, RED), strict=False):
        weight = float(getattr(material.model.config, f"{part}_weight", 1.0))
        label = part if weight == 1 else f"{part} × {weight:g}"
        curves.append((part, weight, label, colour))
    positive = False
    for key, weight, label, colour in curves:
        steps, values = _series(lines, key, weight)
        positive |= any(value > 0 for value in values)
        axes.plot(steps, values, color=colour, label=label, linewidth=1.4, marker=mark)
    plain(axes, "training loss and its parts", "step")
    if positive:
        axes.set_yscale("log", nonpositive="mask")
        _readable_log(axes.yaxis)
    axes.legend(frameon=False, prop={"size": SMALL, "family": FONT}, labelcolor=MUTED)
    last = _series(lines, "loss")[1][-1]
    return Picture(
        "curve-loss",
        png(figure),
        f"Training loss over {lines[-1]['step']} steps; its last value is {last:.3g}.",
        "Each part is multiplied by its weight in the loss. The axis is logarithmic.",
    )


def _test_error(lines: list[dict[str, Any]]) -> Picture:
    figure = new_figure(WIDTH, HEIGHT)
    axes = figure.add_subplot()
    steps, errors = _series(lines, "test_error", 100)
    bands = [(line["step"], *ends) for line in lines if (ends := _interval(line)) is not None]
    if bands:
        band, lows, highs = (np.array(column) for column in zip(*bands, strict=True))
        if len(bands) > 1:
            axes.fill_between(band, 100 * lows, 100 * highs, color=BLUE, alpha=0.18, linewidth=0)
        else:
            axes.vlines(band, 100 * lows, 100 * highs, color=BLUE, alpha=0.4, linewidth=2)
    axes.plot(steps, errors, color=BLUE, marker="o", markersize=3.5, linewidth=1.4)
    axes.annotate(
        f"{errors[-1]:.2f} %",
        (steps[-1], errors[-1]),
        textcoords="offset points",
        xytext=(-2, 9),
        ha="right",
        fontsize=SMALL,
        fontfamily=FONT,
        color=INK,
    )
    plain(axes, "test error, %", "step")
    if min(errors) > 0 and max(errors) > 8 * min(errors):
        axes.set_yscale("log")
        _readable_log(axes.yaxis)
    else:
        axes.set_ylim(bottom=0)
    axes.margins(x=0.06)
    axes.grid(axis="y", color=FAINT, linewidth=0.6)
    return Picture(
        "curve-test-error",
        png(figure),
        f"Test error during training; its last value is {errors[-1]:.2f} percent.",
        "The band is the 95 % interval of each measurement. The curve is not used to select a model: the result "
        "is always the model of the last step, not the best one.",
    )


def _interval(line: dict[str, Any]) -> tuple[float, float] | None:
    value = line.get("interval_95")
    if isinstance(value, list) and len(value) == 2:
        ends = {"low": value[0], "high": value[1]}
        low, high = _number(ends, "low"), _number(ends, "high")
        if low is not None and high is not None:
            return low, high
    return None


def _speed(material: Material, lines: list[dict[str, Any]]) -> Picture:
    figure = new_figure(WIDTH, HEIGHT)
    axes = figure.add_subplot()
    steps, speeds = _series(lines, "images_per_second")
    axes.plot(steps, speeds, color=GREEN, linewidth=1.4, marker="." if len(steps) < 3 else "")
    seconds = _number(material.result, "seconds")
    total = "" if seconds is None else f" ({duration(seconds)} in total)"
    plain(axes, f"training images per second{total}", "step")
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", color=FAINT, linewidth=0.6)
    return Picture(
        "curve-speed",
        png(figure),
        f"Training images per second{total}.",
        "The time of evaluations and checkpoints is not included.",
    )


def _readable_log(axis: Any) -> None:
    """Label a logarithmic axis with plain numbers, also below one power of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    narrow = high < 100 * max(low, 1e-12)
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if narrow else (1.0,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
