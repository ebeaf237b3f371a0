"""Small training sets: a few examples of each class."""

from __future__ import annotations

import numpy as np
import torch

from capsnet._support.errors import CapsnetError
from capsnet.data.dataset import Examples

#: Usual sizes; None is all examples.
PER_CLASS = (1, 5, 10, 50, 100, None)


def per_class(examples: Examples, count: int | None, seed: int) -> Examples:
    """Choose `count` examples of each class at random; None keeps all.

    With the same seed, a smaller choice is part of a larger one.

    Raises:
        CapsnetError: a class has fewer examples.
    """
    if count is None:
        return examples
    labels = examples.labels.cpu().numpy()
    # NumPy promises that RandomState never changes: a seed always chooses the same examples.
    random = np.random.RandomState(seed)
    chosen = []
    for label in np.unique(labels):
        rows = random.permutation(np.flatnonzero(labels == label))
        if not 1 <= count <= len(rows):
            raise CapsnetError(f"cannot take {count} examples per class: class {label} has {len(rows)}")
        chosen.append(rows[:count])
    return examples.subset(torch.from_numpy(np.concatenate(chosen)).to(examples.labels.device))
