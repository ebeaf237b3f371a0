"""Draw docs/images/vote-free-routing.png: one pass over the children.

Usage: `python benchmarks/vote_free_figure.py FILE`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

INK, QUIET, VOTES, STATE = "#1f2933", "#6b7784", "#f6d9cf", "#d5e6f3"


def box(
    axes: object, left: float, bottom: float, width: float, height: float, text: str, colour: str
) -> None:
    axes.add_patch(
        FancyBboxPatch(
            (left, bottom), width, height, boxstyle="round,pad=0.02,rounding_size=0.08",
            facecolor=colour, edgecolor=INK, linewidth=0.8,
        )
    )  # fmt: skip
    axes.text(left + width / 2, bottom + height / 2, text, ha="center", va="center", color=INK, fontsize=9)


def arrow(axes: object, start: tuple[float, float], end: tuple[float, float], bend: float = 0.0) -> None:
    axes.add_patch(
        FancyArrowPatch(
            start, end, arrowstyle="-|>", mutation_scale=10, color=INK, linewidth=0.9,
            connectionstyle=f"arc3,rad={bend}", shrinkA=2, shrinkB=2,
        )
    )  # fmt: skip


def draw() -> Figure:
    figure = Figure(figsize=(8.6, 3.5), dpi=150)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, 10.4)
    axes.set_ylim(0, 4.2)
    axes.axis("off")
    box(axes, 0.2, 2.5, 1.7, 0.8, "children u\nweights W", STATE)
    box(axes, 2.7, 1.2, 4.9, 2.45, "", "#fbf3ef")
    axes.text(5.15, 3.4, "for a few children at a time, in the cache", ha="center", color=QUIET, fontsize=8.5)
    box(axes, 2.9, 2.45, 1.3, 0.7, "votes\nû = W·u", VOTES)
    box(axes, 4.5, 2.45, 1.3, 0.7, "logits\nb = û·V", VOTES)
    box(axes, 6.1, 2.45, 1.3, 0.7, "couplings\nsoftmax b", VOTES)
    box(axes, 4.5, 1.4, 2.9, 0.6, "add c·û to the sums", VOTES)
    box(axes, 8.3, 2.5, 1.8, 0.8, "sums s\n(parents × dim)", STATE)
    box(axes, 8.3, 1.2, 1.8, 0.7, "v = squash(s)", STATE)
    box(axes, 3.9, 0.15, 2.5, 0.6, "V ← V + v  (parents × dim)", STATE)
    arrow(axes, (1.9, 2.85), (2.9, 2.8))
    arrow(axes, (4.2, 2.8), (4.5, 2.8))
    arrow(axes, (5.8, 2.8), (6.1, 2.8))
    arrow(axes, (6.75, 2.45), (6.75, 2.0))
    arrow(axes, (3.55, 2.45), (4.5, 1.7), 0.2)
    arrow(axes, (7.4, 1.7), (8.3, 2.6), 0.15)
    arrow(axes, (9.2, 2.5), (9.2, 1.9))
    arrow(axes, (9.2, 1.2), (6.4, 0.45), -0.25)
    arrow(axes, (4.6, 0.75), (4.7, 2.45), -0.35)
    axes.text(8.0, 0.12, "next iteration", color=QUIET, fontsize=8.5, ha="center")
    axes.text(0.2, 1.7, "blue: kept", color=INK, fontsize=8.5)
    axes.text(0.2, 1.4, "red: computed, used,\noverwritten", color=INK, fontsize=8.5, va="top")
    return figure


if __name__ == "__main__":
    draw().savefig(Path(sys.argv[1]))
