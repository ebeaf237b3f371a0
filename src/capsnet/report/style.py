"""Style all figures alike: colour-blind-safe colours and no global state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette.
BLUE, ORANGE, GREEN, RED, PURPLE, SKY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9"
INK, MUTED, FAINT = "#1f2328", "#59636e", "#d1d9e0"
#: Purple below, pale in the middle, orange above: safe for colour-blind readers.
DIVERGING = "PuOr_r"

DPI = 160
SMALL, NORMAL = 8.0, 9.0
FONT = "DejaVu Sans"  # comes with matplotlib, so that figures look the same everywhere


@dataclass(frozen=True)
class Picture:
    """Hold a finished figure as PNG, with its texts."""

    name: str
    """The file name without its suffix."""
    png: bytes
    alt: str
    """A description of the figure for readers who cannot see it."""
    caption: str = ""
    wide: bool = False
    """Whether the figure needs the full width of the page."""

    @property
    def size(self) -> tuple[int, int]:
        """Return width and height in CSS pixels."""
        width, height = (int.from_bytes(self.png[start : start + 4], "big") for start in (16, 20))
        return width * 96 // DPI, height * 96 // DPI


def new_figure(width: float, height: float) -> Figure:
    """Create an empty figure; the size is in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DPI, facecolor="white", layout="constrained")


def png(figure: Figure) -> bytes:
    """Render the figure as PNG bytes; equal figures give equal bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = BytesIO()
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})  # type: ignore[no-untyped-call]
    return buffer.getvalue()


def plain(axes: Axes, title: str = "", x: str = "", y: str = "") -> None:
    """Apply the common style to axes."""
    from matplotlib.ticker import MaxNLocator

    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(MUTED)
    axes.set_facecolor("white")
    axes.tick_params(which="both", colors=MUTED, labelsize=SMALL, labelfontfamily=FONT)
    axes.set_axisbelow(True)
    axes.grid(False)
    if x == "step":
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    for write, text, colour in (
        (axes.set_title, title, INK),
        (axes.set_xlabel, x, MUTED),
        (axes.set_ylabel, y, MUTED),
    ):
        if text:
            write(text, fontsize=NORMAL, color=colour, fontfamily=FONT)


def bare(axes: Axes, title: str = "", colour: str = INK, below: str = "") -> None:
    """Prepare axes for a picture: no ticks, no frame, a short text above or below."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    if title:
        axes.set_title(title, fontsize=SMALL, color=colour, fontfamily=FONT, pad=3)
    if below:
        axes.set_xlabel(below, fontsize=SMALL, color=MUTED, fontfamily=FONT, labelpad=3)


def text_font() -> dict[str, Any]:
    """Return keyword arguments for tick labels and other small text."""
    return {"fontsize": SMALL, "color": MUTED, "fontfamily": FONT}


@cache
def _glyphs() -> frozenset[int]:
    from matplotlib import font_manager, ft2font

    return frozenset(ft2font.FT2Font(font_manager.findfont(FONT)).get_charmap())


def drawable(names: Sequence[str], limit: int = 12) -> tuple[str, ...]:
    """Shorten class names to one line, and replace names that the font cannot show.

    Such a name becomes "class" and its number. Characters of matplotlib's math mode are escaped. The HTML page
    shows all names in full, because it uses the reader's fonts.
    """
    shown = []
    for number, name in enumerate(names):
        if not name.strip() or any(
            ord(letter) not in _glyphs() or not letter.isprintable() for letter in name
        ):
            shown.append(f"class {number}")
            continue
        short = name if len(name) <= limit else name[: limit - 1] + "…"
        shown.append(short.replace("\\", "∖").replace("$", r"\$"))
    return tuple(shown)


def pixels(image: Float[Tensor, "channels height width"]) -> NDArray[np.float32]:
    """Convert an image for matplotlib: (height, width[, 3]) in [0, 1].

    An image with two channels (a stereo pair) is shown by its first channel.
    """
    array = image.detach().to("cpu").float().nan_to_num(0.0).clamp(0, 1).numpy()
    result: NDArray[np.float32] = array[0] if len(array) < 3 else array[:3].transpose(1, 2, 0)
    return result


def show(axes: Axes, image: NDArray[Any]) -> None:
    """Draw pixels without rescaling their values."""
    axes.imshow(image, cmap="gray", vmin=0.0, vmax=1.0, interpolation="auto")


def mosaic(
    images: Float[Tensor, "rows columns channels height width"], gap: int = 2
) -> tuple[NDArray[np.float32], list[float], list[float]]:
    """Join images with white gaps; also return the centres of rows and columns."""
    rows, columns, channels, height, width = images.shape
    colours = () if channels < 3 else (3,)
    tall, broad = height + gap, width + gap
    canvas = np.ones((rows * tall - gap, columns * broad - gap, *colours), np.float32)
    for row in range(rows):
        for column in range(columns):
            at = (
                slice(row * tall, row * tall + height),
                slice(column * broad, column * broad + width),
            )
            canvas[at] = pixels(images[row, column])
    return (
        canvas,
        [row * tall + (height - 1) / 2 for row in range(rows)],
        [column * broad + (width - 1) / 2 for column in range(columns)],
    )
