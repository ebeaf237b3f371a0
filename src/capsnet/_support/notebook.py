"""Small HTML for `_repr_html_`: tables, bars and curves, without scripts, in any theme."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import isfinite


def table(title: str, rows: Sequence[Sequence[str]], header: Sequence[str] = ()) -> str:
    """Return a table; the cells are HTML already, see `text` and `bar`."""
    head = "".join(f"<th style='text-align:left'>{cell}</th>" for cell in header)
    body = "".join(
        "<tr>" + "".join(f"<td style='text-align:left'>{cell}</td>" for cell in row) + "</tr>" for row in rows
    )
    head = f"<thead><tr>{head}</tr></thead>" if header else ""
    return f"<div><strong>{escape(title)}</strong><table>{head}<tbody>{body}</tbody></table></div>"


def text(value: object) -> str:
    """Return a value as escaped text."""
    return escape(str(value))


def bar(share: float, label: str) -> str:
    """Return a bar of `share` (0 … 1) of its full width, and a label."""
    width = 5 * min(1.0, max(0.0, share)) if isfinite(share) else 0
    style = f"display:inline-block;width:{width:.2f}em;height:.7em;background:#0072b2;margin-right:.4em"
    return f"<span style='{style}'></span>{escape(label)}"


def curve(values: Sequence[float], width: int = 160, height: int = 32) -> str:
    """Return a line through the finite values; "" for fewer than two."""
    shown = [value for value in values if isfinite(value)]
    if len(shown) < 2:
        return ""
    low, high = min(shown), max(shown)
    span = (high - low) or 1.0
    points = " ".join(
        f"{index * width / (len(shown) - 1):.1f},{height - (value - low) / span * (height - 2) - 1:.1f}"
        for index, value in enumerate(shown)
    )
    line = f"<polyline points='{points}' fill='none' stroke='#0072b2' stroke-width='1.5'/>"
    return f"<svg width='{width}' height='{height}' role='img' aria-label='curve'>{line}</svg>"
