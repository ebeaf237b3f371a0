"""Draw the effect of each capsule dimension, and the couplings per iteration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from capsnet.explain.perturb import MEANING_OFFSETS, OFFSETS, dimension_effects, dimension_sheet
from capsnet.explain.routing import coupling_entropy, logit_changes
from capsnet.models.capsnet import CapsNetTrace
from capsnet.models.protocols import Decodes, Routed, Traceable, decodes
from capsnet.report.material import Material
from capsnet.report.style import (
    BLUE,
    DIVERGING,
    FAINT,
    FONT,
    GREEN,
    INK,
    MUTED,
    NORMAL,
    ORANGE,
    SMALL,
    Picture,
    bare,
    mosaic,
    new_figure,
    pixels,
    plain,
    png,
    show,
    text_font,
)
from capsnet.routing import RoutingTrace

#: Largest number of dimensions drawn (the paper's capsules have 16).
DIMENSIONS = 32
#: Examples from which the meaning of a dimension is measured.
MEANING_EXAMPLES = 5
#: Largest number of routing iterations drawn: the first, the last, and some between.
ITERATIONS = 4
ROUTING_EXAMPLES = 64
SPREAD_HEIGHT = 2.3


def sheets(material: Material, model: Decodes) -> list[Picture]:
    """Draw one dimension sheet for each class, for at most ten classes."""
    return [_sheet(material, model, number) for number in material.classes_shown]


@torch.no_grad()
def _sheet(material: Material, model: Decodes, number: int) -> Picture:
    chosen = material.of_class(number, MEANING_EXAMPLES)
    batch = material.batch(chosen)
    capsules = model.class_poses(batch.images)
    sheet = dimension_sheet(model, capsules[0], number)[:DIMENSIONS]
    meanings: list[tuple[str, float] | None] = [None] * len(sheet)
    if len(chosen) > 1 and material.is_light_on_dark:
        numbers = torch.full((len(chosen),), number)
        meanings = dimension_effects(model, capsules, numbers, MEANING_OFFSETS).meanings()[:DIMENSIONS]
    length = float(capsules[0, number].norm())
    drawn = draw_sheet(sheet, f"{material.names[number]}: a capsule of length {length:.2f}", meanings)
    found = sorted({meaning[0] for meaning in meanings if meaning})
    return Picture(
        f"dimensions-{number}",
        drawn,
        f"Reconstructions of class {material.dataset.class_names[number]} with each of {len(sheet)} dimensions changed "
        f"from {OFFSETS[0]} to {OFFSETS[-1]}" + (f"; they change {', '.join(found)}." if found else "."),
    )


def draw_sheet(
    sheet: Float[Tensor, "dim offsets channels height width"],
    title: str,
    meanings: Sequence[tuple[str, float] | None] = (),
) -> bytes:
    """Draw what `dimension_sheet` returns for `OFFSETS`, as a PNG.

    Args:
        sheet: one row of images for each dimension.
        title: above it.
        meanings: of the dimensions, from `DimensionEffects.meanings`.
    """
    canvas, rows, columns = mosaic(sheet)
    broad = 4.3 if meanings else 3.6
    figure = new_figure(
        broad, (broad - (1.5 if meanings else 0.8)) * canvas.shape[0] / canvas.shape[1] + 0.75
    )
    axes = figure.add_subplot()
    show(axes, canvas)
    bare(axes, title)
    axes.set_xticks([columns[0], columns[len(columns) // 2], columns[-1]])
    axes.set_xticklabels([f"{OFFSETS[0]:+g}", "0", f"{OFFSETS[-1]:+g}"], **text_font())
    axes.set_yticks(rows, [str(row + 1) for row in range(len(rows))], **text_font())
    axes.set_ylabel("dimension", **text_font())
    axes.tick_params(length=0)
    if meanings:
        other: Any = axes.secondary_yaxis("right")
        other.set_yticks(rows, [_meaning(meaning) for meaning in meanings], **text_font())
        other.tick_params(length=0)
        other.spines["right"].set_visible(False)
    return png(figure)


#: Words for a measure that grows, and for one that shrinks, from left to right.
WORDS = {
    "area": ("more ink", "less ink"),
    "length": ("longer", "shorter"),
    "thickness": ("thicker", "thinner"),
    "slant": ("leans right", "leans left"),
    "width": ("wider", "narrower"),
    "height": ("taller", "flatter"),
    "across": ("moves right", "moves left"),
    "down": ("moves down", "moves up"),
}


def _meaning(meaning: tuple[str, float] | None) -> str:
    return "" if meaning is None else WORDS[meaning[0]][0 if meaning[1] > 0 else 1]


def couplings_picture(material: Material, model: Routed, index: int, name: str) -> Picture:
    """Draw the couplings of one image, per iteration; for CapsNet also where they come from."""
    batch = material.batch([index])
    picture = material.pictures(batch)[0]
    title = f"input: {material.named(material.evaluation.labels[index])}"
    said = material.named(material.evaluation.predictions[index])
    if isinstance(model, Traceable):
        trace = model.trace(batch.images)
        routing, drawn = trace.routing, draw_couplings(model, trace, picture, material.names, title)
    else:
        routing = model.class_routing(batch.images)
        drawn = draw_spread(routing, picture, material.names, title)
    first, second = _two_highest(routing)
    steps = len(routing.couplings)
    return Picture(
        name,
        drawn,
        f"Couplings of the children to classes {material.names[first]} and {material.names[second]} over "
        f"{steps} routing iteration{'s' if steps > 1 else ''}; the answer is {said}.",
        wide=True,
    )


def draw_spread(
    routing: RoutingTrace,
    picture: Float[Tensor, "channels height width"],
    names: Sequence[str],
    title: str,
) -> bytes:
    """Draw the first example's couplings to each class beside the image, as a PNG. Arguments as `draw_couplings`."""
    figure = new_figure(8.6, SPREAD_HEIGHT)
    axes: Any = figure.subplots(1, 2, width_ratios=[1, 4])
    show(axes[0], pixels(picture))
    bare(axes[0], title)
    _spread(names, axes[1], routing, _iterations(len(routing.couplings)))
    return png(figure)


def draw_couplings(
    model: Traceable,
    trace: CapsNetTrace,
    picture: Float[Tensor, "channels height width"],
    names: Sequence[str],
    title: str,
) -> bytes:
    """Draw the couplings to the two longest capsules of the first example, as a PNG.

    Args:
        model: of the trace.
        trace: what the network did with the image.
        picture: the image.
        names: of the classes, as `drawable` returns them.
        title: above the image.
    """
    lengths = trace.lengths[0].nan_to_num(0.0).cpu()
    first, second = _two_highest(trace.routing)
    steps = _iterations(len(trace.routing.couplings))
    maps = coupling_maps(model, trace)[steps].cpu().numpy()
    even = 1 / (len(lengths) + trace.routing.leaky)
    # The scale is symmetric about the initial coupling (the middle colour), and wide enough to hide rounding.
    widest = max(float(np.nanmax(np.abs(maps[..., [first, second]] - even), initial=0.0)), even / 100)
    scale = {"vmin": even - widest, "vmax": even + widest}
    _, high, wide = picture.shape
    aspect = max(high / wide, maps.shape[1] / maps.shape[2])
    maps_height = 2 * (min(7.2 / (len(steps) + 1), 2.2) * aspect + 0.22)
    figure = new_figure(8.6, maps_height + SPREAD_HEIGHT)
    halves: Any = figure.subfigures(2, 1, height_ratios=[maps_height, SPREAD_HEIGHT])
    upper, lower = halves
    grid = upper.subplots(2, len(steps) + 1, squeeze=False)
    show(grid[0, 0], pixels(picture))
    bare(grid[0, 0], title)
    bare(grid[1, 0])
    if decodes(model):
        show(grid[1, 0], pixels(model.decode(trace.capsules, first)[0]))
        bare(grid[1, 0], f"drawn by {names[first]}")
    heat: Any = None
    for row, number in enumerate((first, second)):
        for column, step in enumerate(steps, start=1):
            axes = grid[row, column]
            heat = axes.imshow(maps[column - 1, ..., number], cmap=DIVERGING, **scale)
            bare(axes, f"iteration {step + 1}" if row == 0 else "")
        share = f"to {names[number]}\n(length {float(lengths[number]):.2f})"
        grid[row, 1].set_ylabel(share, **text_font())
    bar = upper.colorbar(heat, ax=grid[:, 1:].ravel().tolist(), shrink=0.8, pad=0.02)
    bar.ax.tick_params(colors=MUTED, labelsize=SMALL, labelfontfamily=FONT)
    bar.outline.set_visible(False)
    bar.ax.set_ylim(bottom=max(0.0, even - widest))
    bar.set_label("mean coupling", **text_font())
    _spread(names, lower.subplots(), trace.routing, steps)
    return png(figure)


def _two_highest(routing: RoutingTrace) -> list[int]:
    highest: list[int] = routing.scores[-1, 0].nan_to_num(0.0).topk(2).indices.tolist()
    return highest


def _iterations(count: int) -> list[int]:
    return sorted({round(float(step)) for step in np.linspace(0, count - 1, min(count, ITERATIONS))})


def coupling_maps(model: Traceable, trace: CapsNetTrace) -> Float[Tensor, "iterations rows columns classes"]:
    """Return the first example's couplings per position, mean over capsule types."""
    rows, columns = model.config.grid
    couplings = trace.routing.couplings[:, 0]
    return couplings.unflatten(1, (-1, rows, columns)).mean(dim=1)  # type: ignore[no-untyped-call,no-any-return]


def _spread(class_names: Sequence[str], axes: Any, routing: RoutingTrace, steps: list[int]) -> None:
    scores = routing.scores[-1, 0].nan_to_num(0.0).cpu()
    shown = scores.topk(min(10, len(scores))).indices.sort().values.tolist()
    couplings = routing.couplings[:, 0].cpu().numpy()
    palette = (FAINT, ORANGE, BLUE, GREEN) if len(steps) > 1 else (BLUE,)
    gap = 0.8 / len(steps)
    for place, step in enumerate(steps):
        values: NDArray[Any] = couplings[step][:, shown]
        low, quarter, middle, three, high = np.nanquantile(values, (0.05, 0.25, 0.5, 0.75, 0.95), axis=0)
        at = np.arange(len(shown)) + (place - (len(steps) - 1) / 2) * gap
        colour = MUTED if step == 0 and len(steps) > 1 else palette[place]
        axes.vlines(at, low, high, color=colour, linewidth=1.1)
        axes.vlines(at, quarter, three, color=colour, linewidth=4.0)
        axes.plot(at, middle, "o", color="white", markeredgecolor=colour, markersize=3.4, markeredgewidth=0.9)
        axes.plot([], [], color=colour, linewidth=4, label=f"iteration {step + 1}")
    axes.axhline(1 / (len(scores) + routing.leaky), color=MUTED, linewidth=0.7, linestyle=(0, (3, 3)))
    plain(axes, "", "", "coupling")
    axes.set_title(
        "couplings of all children to each class",
        loc="left",
        fontsize=NORMAL,
        color=INK,
        fontfamily=FONT,
    )
    names = [class_names[number] for number in shown]
    slope = {"rotation": 25, "ha": "right", "rotation_mode": "anchor"} if max(map(len, names)) > 6 else {}
    axes.set_xticks(range(len(shown)), names, **text_font(), **slope)
    axes.legend(
        frameon=False,
        prop={"size": SMALL, "family": FONT},
        labelcolor=INK,
        loc="lower right",
        bbox_to_anchor=(1.0, 1.0),
        borderaxespad=0.2,
        ncols=len(steps),
    )


def routing_numbers(material: Material, model: Routed) -> tuple[list[tuple[str, ...]], str]:
    """Return a table of routing statistics per iteration, and a note on dead capsules."""
    one = model.class_routing(material.batch([0]).images)
    votes = one.couplings.shape[2] * one.outputs[0, 0].numel()
    routing = model.class_routing(material.batch(material.several(ROUTING_EXAMPLES, votes)).images)
    entropy = coupling_entropy(routing).mean(dim=1).tolist()
    changes = [None, *logit_changes(routing).mean(dim=1).tolist()]
    highest = routing.scores.amax(dim=-1).mean(dim=-1).tolist()
    top = "longest capsule" if material.measure == "length" else "highest activation"
    table: list[tuple[str, ...]] = [("iteration", "entropy of couplings", "change of logits", top)]
    for step, (spread, change, score) in enumerate(zip(entropy, changes, highest, strict=True), start=1):
        table.append((str(step), f"{spread:.2%}", "–" if change is None else f"{change:.4f}", f"{score:.2f}"))
    images = routing.couplings.shape[1]
    even = "Here the couplings stay nearly equal. " if entropy[-1] > 0.95 else ""
    dead = float((routing.presence.amax(dim=0) < 0.01).float().mean())
    measure = "shorter than 0.01" if routing.child_activations is None else "less active than 0.01"
    change = (
        "The change of the logits is the change from the previous iteration. " if len(entropy) > 1 else ""
    )
    return table, (
        f"Means over {images} test image{'s' if images > 1 else ''}. Entropy: at 100 % the couplings are equal for "
        f"all classes, at 0 % each capsule sends to one class only. {change}"
        f"{even if len(entropy) > 1 else ''}"
        f"{dead:.1%} of the children are dead: they are {measure} in all these images."
    )
