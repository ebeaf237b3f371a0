"""Turn one of a capsule's numbers at a time and look at what the decoder draws (section 5.1, figure 4)."""

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

#: The paper's: −0.25 … 0.25 in steps of 0.05.
OFFSETS = tuple(step / 20 for step in range(-5, 6))

#: A dimension is given a name only if its measure follows it this faithfully in nearly every example,
CLEAR_CORRELATION = 0.8
#: and over the whole range by at least this share of the measure's yardstick.
CLEAR_CHANGE = 0.5
#: Changes that an eye notices in an image of 28 pixels, in the order of `MEASURES`. A measure that hardly
#: varies between examples (centred digits' places) would otherwise make much of nothing.
NOTICEABLE = (10.0, 4.0, 0.5, 5.0, 1.0, 1.0, 1.0, 1.0)
#: Powers of the image's side by which they grow with it: an area by the square, an angle not at all.
GROWTH = (2, 1, 1, 0, 1, 1, 1, 1)


@torch.no_grad()
def dimension_sheet(
    model: Decodes,
    capsules: Float[Tensor, "classes dim"],
    class_number: int | None = None,
    offsets: Sequence[float] = OFFSETS,
) -> Float[Tensor, "dim offsets channels height width"]:
    """Reconstructions of one example with each number of one capsule changed by each offset.

    Args:
        model: a CapsNet with a decoder.
        capsules: one example's class capsules, `model.class_poses(images)[0]`.
        class_number: whose capsule; None: the longest.
        offsets: what is added to one number while the others stay.

    Returns:
        One row per dimension, one column per offset.

    Raises:
        ValueError: the model has no decoder, or the capsules are not one example's.
    """
    if capsules.ndim != 2:
        raise ValueError(f"dimension_sheet: capsules {tuple(capsules.shape)} must be (classes, dim)")
    if class_number is None:
        class_number = int(capsules.norm(dim=-1).argmax())
    dims = capsules.shape[1]
    changes = torch.eye(dims, device=capsules.device, dtype=capsules.dtype)[:, None] * torch.tensor(
        offsets, device=capsules.device, dtype=capsules.dtype
    ).view(1, -1, 1)  # (dim, offsets, dim)
    turned = capsules.repeat(dims * len(offsets), 1, 1)
    turned[:, class_number] += changes.flatten(0, 1)
    return model.decode(turned, class_number).unflatten(0, (dims, len(offsets)))  # type: ignore[no-untyped-call,no-any-return]


@dataclass(frozen=True, eq=False)
class DimensionEffects:
    """What turning each number of a class's capsule does to the drawing, over several examples."""

    correlation: NDArray[np.float64]
    """(dim, measures): correlation of offset and measure within an example, mean over the examples."""
    change: NDArray[np.float64]
    """(dim, measures): change of the measure from the lowest offset to the highest by a straight line, mean
    over the examples, in the measure's own unit."""
    yardstick: NDArray[np.float64]
    """(measures,): standard deviation of the measure between the examples, or what an eye notices if that is
    more."""

    def meanings(self) -> list[tuple[str, float] | None]:
        """For each dimension, the measure that it changes most (by the yardstick) and that follows it
        faithfully, with its correlation; None where nothing does."""
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
    """Measure the drawings of `dimension_sheet` for several examples (of one class, to be comparable).

    Raises:
        ValueError: the model has no decoder; fewer than two examples or different offsets.
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
    """Mean over the first axis of the numbers that are there; NaN where none is."""
    there = np.isfinite(values)
    total = np.where(there, values, 0.0).sum(axis=0)
    count = there.sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
