"""Two overlapping digits per image, generated on demand (section 6 of the paper)."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

from capsnet.data import digits
from capsnet.data.augmentation import choose, windows
from capsnet.data.dataset import Batch, Dataset, Examples
from capsnet.data.fixed_random import freeze
from capsnet.data.registry import register

CANVAS = 36
TEST_PAIRS = 10_000
#: The table of random numbers for the test pairs; see `frozen_uniforms`.
TEST_STREAM = 1


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of digits of different classes, each shifted on a larger canvas.

    The pixels are added and clipped at 1. Each pair takes five uniform numbers. The first chooses the second digit, all
    examples of other classes being equally likely. The other four are the shifts of both digits, down and across.

    Build it with `Pairs.of`.
    """

    examples: Examples
    canvas: int
    shift: int
    #: Indices of the examples sorted by class; where each class begins there; and the size of each class.
    order: Int[Tensor, " examples"]
    starts: Int[Tensor, " classes"]
    counts: Int[Tensor, " classes"]

    draws: int = 5

    @classmethod
    def of(cls, examples: Examples, shift: int = 4, canvas: int = CANVAS) -> Pairs:
        """Build pairs from `examples` on a square canvas.

        Each digit is shifted by −shift … shift pixels from the centre.

        Raises:
            ValueError: there are fewer than two classes, images are larger than the canvas, or examples are augmented.
        """
        if examples.draws:
            raise ValueError("pairs need examples without augmentation")
        if max(examples.images.shape[2:]) > canvas:
            raise ValueError(f"images of {tuple(examples.images.shape[2:])} do not fit a canvas of {canvas}")
        counts = torch.bincount(examples.labels)
        if (counts > 0).sum() < 2:
            raise ValueError("pairs need examples of at least two classes")
        order = torch.argsort(examples.labels, stable=True)
        return cls(examples, canvas, shift, order, counts.cumsum(0) - counts, counts)

    def __len__(self) -> int:
        return len(self.examples)

    def to(self, device: torch.device | str) -> Pairs:
        """Return the same pairs on `device`."""
        moved = {f.name: getattr(self, f.name).to(device) for f in fields(self) if f.name not in _NUMBERS}
        return replace(self, **moved)

    def choices(
        self, indices: Int[Tensor, " batch"], uniforms: Float[Tensor, "batch 5"]
    ) -> tuple[Int[Tensor, " batch"], Int[Tensor, "batch 4"]]:
        """Return the partners, and the shifts in pixels (down, across, down, across)."""
        label = self.examples.labels.index_select(0, indices)
        own = self.counts.index_select(0, label)
        # Skip the first digit's own class, whose examples are adjacent in `order`, and wrap around.
        steps = choose(uniforms[:, 0], len(self) - own)
        place = (self.starts.index_select(0, label) + own + steps) % len(self)
        shifts = choose(uniforms[:, 1:], 2 * self.shift + 1) - self.shift
        return self.order.index_select(0, place), shifts

    def batch(
        self, indices: Int[Tensor, " batch"], uniforms: Float[Tensor, "batch 5"] | None = None
    ) -> Batch:
        """Return pairs whose first digits are the examples `indices`.

        `originals` are both digits at their places on the canvas.

        Raises:
            ValueError: `uniforms` does not have five numbers for each pair.
        """
        if uniforms is None or uniforms.shape != (len(indices), 5):
            raise ValueError("pairs take 5 uniform numbers each")
        partners, shifts = self.choices(indices, uniforms)
        both = torch.stack((indices, partners), dim=1)
        placed = self._place(self.examples.batch(both.flatten()).images, shifts.reshape(-1, 2))
        originals = placed.unflatten(0, (-1, 2))  # type: ignore[no-untyped-call]
        images = originals.sum(dim=1).clamp(max=1)
        return Batch(images, self.examples.labels.index_select(0, both.flatten()).view(-1, 2), originals)

    def _place(
        self, images: Float[Tensor, "digits channels height width"], shifts: Int[Tensor, "digits 2"]
    ) -> Float[Tensor, "digits channels canvas canvas"]:
        top, left = self.canvas - images.shape[2], self.canvas - images.shape[3]
        margins = (left // 2, left - left // 2, top // 2, top - top // 2)
        margin = self.shift
        padded = pad(images, [side + margin for side in margins])
        return windows(padded, margin - shifts[:, 0], margin - shifts[:, 1], (self.canvas, self.canvas))


_NUMBERS = {"canvas", "shift", "draws"}


@register("multimnist", "multimnist-shift6", "multimnist5k")
def load(name: str, data_dir: Path | str | None = None, download: bool = True) -> Dataset:
    """Load `multimnist`, `multimnist-shift6` or `multimnist5k`.

    Shifts are up to 4 px, as in the paper, or up to 6 px, as in the authors' code. Training pairs use training digits
    only. The 10,000 test pairs are fixed: each test digit is the first digit of one pair. `multimnist5k` is made from
    `mnist5k` instead of MNIST.

    Raises:
        CapsnetError: MNIST is missing or damaged.
    """
    base = digits.load("mnist5k" if name == "multimnist5k" else "mnist", data_dir, download)
    shift = 6 if name == "multimnist-shift6" else 4
    assert isinstance(base.train, Examples)
    assert isinstance(base.test, Examples)
    return Dataset(
        name,
        Pairs.of(base.train, shift),
        freeze(Pairs.of(base.test, shift), TEST_STREAM, TEST_PAIRS),
        base.class_names,
        (1, CANVAS, CANVAS),
        f"Pairs of digits of different classes, each shifted up to {shift} px on {CANVAS}×{CANVAS}, made "
        f"from {base.provenance.rstrip('.')}; the {TEST_PAIRS:,} test pairs are our own and fixed.",
    )
