"""Random numbers that never change, for test sets made from other data sets.

They are the same on every machine and in every version; no library's generator promises that. The numbers are an
integer hash of a counter (SplitMix64: Steele, Lea and Flood 2014), computed in exact arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from capsnet.data.dataset import Batch, Source


def splitmix64(counters: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return output number `counter` of the generator SplitMix64 with seed 0."""
    with np.errstate(over="ignore"):
        z = (counters + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def frozen_uniforms(stream: int, examples: int, draws: int) -> Float[Tensor, "examples draws"]:
    """Return a table of uniform float64 numbers in [0, 1) that never change.

    Args:
        stream: which of 2³² independent tables.
        examples: rows of the table; a longer table begins with the shorter one.
        draws: numbers per row.
    """
    counters = (np.uint64(stream) << np.uint64(32)) + np.arange(examples * draws, dtype=np.uint64)
    # A float64 has 53 bits of precision.
    numbers = (splitmix64(counters) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return torch.from_numpy(numbers.reshape(examples, draws))


@dataclass(frozen=True, eq=False)
class Frozen:
    """A source with fixed random numbers.

    Example i is example `indices[i]` of `source`.

    Args:
        source: where the examples come from.
        indices: which ones, shape (examples,); an index may occur more than once.
        uniforms: the source's random numbers for each example, shape (examples, draws).
    """

    source: Source
    indices: Int[Tensor, " examples"]
    uniforms: Float[Tensor, "examples draws"]

    #: The source itself takes no random numbers.
    draws: int = 0

    def __len__(self) -> int:
        return len(self.indices)

    def to(self, device: torch.device | str) -> Frozen:
        """Return the same examples on `device`."""
        return replace(
            self,
            source=self.source.to(device),
            indices=self.indices.to(device),
            uniforms=self.uniforms.to(device),
        )

    def batch(
        self, indices: Int[Tensor, " batch"], uniforms: Float[Tensor, "batch draws"] | None = None
    ) -> Batch:
        """Return the examples `indices`. `uniforms` must be None or empty."""
        if uniforms is not None and uniforms.shape[1]:
            raise ValueError("a frozen source takes no uniform numbers")
        return self.source.batch(
            self.indices.index_select(0, indices), self.uniforms.index_select(0, indices)
        )

    def subset(self, chosen: Int[Tensor, " chosen"]) -> Frozen:
        """Return the examples `chosen`, in that order."""
        return replace(self, indices=self.indices[chosen], uniforms=self.uniforms[chosen])


def freeze(source: Source, stream: int, examples: int | None = None) -> Frozen:
    """Fix a source's random numbers by `frozen_uniforms`.

    The result has `examples` examples: those of the source in order, repeated if it has fewer.

    Raises:
        ValueError: the source is empty, but `examples` is not 0.
    """
    count = len(source) if examples is None else examples
    if count and not len(source):
        raise ValueError(f"freeze: {count} examples of an empty source")
    return Frozen(
        source, torch.arange(count) % max(1, len(source)), frozen_uniforms(stream, count, source.draws)
    )
