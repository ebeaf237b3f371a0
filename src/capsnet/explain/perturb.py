"""Change one dimension of a capsule at a time and decode it (figure 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from capsnet.explain.morphometrics import MEASURES, correlations, measure
from capsnet.models.protocols import Decodes

#: The paper's offsets: −0.25 to 0.25 in steps of 0.05.
OFFSETS = tuple(step / 20 for step in range(-5, 6))

#: A dimension gets a name only if its correlation with a measure is at least this in absolute value,
CLEAR_CORRELATION = 0.8
#: and if the measure changes over the whole range by at least this share of its yardstick.
CLEAR_CHANGE = 0.5
#: Offsets of a dimension from which its meaning is usually measured.
MEANING_OFFSETS = (-0.25, -0.125, 0.0, 0.125, 0.25)
#: Smallest changes that a person sees in a 28-pixel image, in the order of `MEASURES`. They are the least
#: yardsticks: some measures hardly vary between examples, for example the position of centred digits.
NOTICEABLE = (10.0, 4.0, 0.5, 5.0, 1.0, 1.0, 1.0, 1.0)
#: Exponents by which `NOTICEABLE` grows with the image's side: 2 for an area, 0 for an angle.
GROWTH = (2, 1, 1, 0, 1, 1, 1, 1)


@torch.no_grad()
def dimension_sheet(
    model: Decodes,
    capsules: Float[Tensor, "classes dim"],
    class_number: int | Int[Tensor, ""] | None = None,
    offsets: Sequence[float] = OFFSETS,
) -> Float[Tensor, "dim offsets channels height width"]:
    """Decode one example with each dimension of one capsule changed by each offset.

    Args:
        model: a CapsNet with a decoder.
        capsules: class capsules of one example, `model.class_poses(images)[0]`.
        class_number: class of the capsule to change; None takes the longest.
        offsets: values added to one dimension while the others stay.

    Returns:
        One row per dimension, one column per offset.

    Raises:
        ValueError: the model has no decoder, or `capsules` does not hold exactly one example.
    """
    if capsules.ndim != 2:
        raise ValueError(f"dimension_sheet: capsules {tuple(capsules.shape)} must be (classes, dim)")
    if class_number is None:
        class_number = capsules.norm(dim=-1).argmax()
    dims = capsules.shape[1]
    changes = torch.eye(dims, device=capsules.device, dtype=capsules.dtype)[:, None] * torch.tensor(
        offsets, device=capsules.device, dtype=capsules.dtype
    ).view(1, -1, 1)  # (dim, offsets, dim)
    chosen = torch.arange(len(capsules), device=capsules.device) == class_number
    turned = capsules + chosen[:, None] * changes.flatten(0, 1)[:, None]
    labels = torch.as_tensor(class_number, device=capsules.device).expand(len(turned))
    return model.decode(turned, labels).unflatten(0, (dims, len(offsets)))  # type: ignore[no-untyped-call,no-any-return]


@dataclass(frozen=True, eq=False)
class DimensionEffects:
    """Hold how each dimension of a class capsule changes the drawing, over examples."""

    correlation: NDArray[np.float64]
    """(dim, measures): correlation of offset and measure within an example, mean over the examples."""
    change: NDArray[np.float64]
    """(dim, measures): change of the measure from the lowest to the highest offset, from a straight-line fit;
    mean over the examples, in the measure's unit."""
    yardstick: NDArray[np.float64]
    """(measures,): standard deviation of the measure between examples, but at least `NOTICEABLE`."""

    def meanings(self) -> list[tuple[str, float] | None]:
        """Return (measure, correlation) for each dimension, or None without a clear one.

        The measure is the one with the largest change in units of its yardstick, among those with a clear
        correlation.
        """
        effect = np.nan_to_num(np.abs(self.change) / self.yardstick)
        clear = np.abs(np.nan_to_num(self.correlation)) >= CLEAR_CORRELATION
        effect = np.where(clear & (effect >= CLEAR_CHANGE), effect, 0.0)
        best = effect.argmax(axis=1)
        return [
            (MEASURES[column], float(self.correlation[row, column])) if effect[row, column] > 0 else None
            for row, column in enumerate(best)
        ]


def dimension_effects(
    model: Decodes,
    capsules: Float[Tensor, "batch classes dim"],
    classes: Int[Tensor, " batch"],
    offsets: Sequence[float] = OFFSETS,
) -> DimensionEffects:
    """Measure the drawings of `dimension_sheet` for several examples of one class.

    Raises:
        ValueError: the model has no decoder, or there are fewer than two examples or two different offsets.
    """
    if len(capsules) < 2 or len(set(offsets)) < 2:
        raise ValueError("dimension_effects: needs at least two examples and two offsets")
    at = np.asarray(offsets, dtype=np.float64)
    found, slopes, middles = [], [], []
    for example, number in zip(capsules, classes.tolist(), strict=True):
        sheet = dimension_sheet(model, example, number, offsets)
        values = measure(sheet.flatten(0, 1)).reshape(*sheet.shape[:2], len(MEASURES))
        found.append([correlations(at[:, None], row)[0] for row in values])
        centred = at - at.mean()
        slopes.append(np.einsum("o,dom->dm", centred, values) / (centred @ centred))
        middles.append(values[:, len(at) // 2].mean(axis=0))
    side = max(model.config.image_shape[1:]) / 28
    noticeable = np.array(NOTICEABLE) * side ** np.array(GROWTH, dtype=np.float64)
    return DimensionEffects(
        _mean(np.array(found)),
        _mean(np.array(slopes)) * (at.max() - at.min()),
        np.fmax(np.std(middles, axis=0), noticeable),
    )


def _mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean of the finite values over the first axis; NaN for none."""
    there = np.isfinite(values)
    total = np.where(there, values, 0.0).sum(axis=0)
    count = there.sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
