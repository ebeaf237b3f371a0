"""Small training sets: a few examples of each class."""

from __future__ import annotations

import numpy as np
import torch

from capsnet._support.errors import CapsnetError
from capsnet.data.dataset import Examples

#: The sizes usually compared; None is all.
PER_CLASS = (1, 5, 10, 50, 100, None)


def per_class(examples: Examples, count: int | None, seed: int) -> Examples:
    """`count` examples of each class, chosen by `seed`; None leaves all.

    For one seed the smaller choices are parts of the larger ones.

    Raises:
        CapsnetError: a class has fewer examples.
    """
    if count is None:
        return examples
    labels = examples.labels.cpu().numpy()
    # RandomState's streams are frozen by policy: the same seed chooses the same examples for ever.
    random = np.random.RandomState(seed)
    chosen = []
    for label in np.unique(labels):
        rows = random.permutation(np.flatnonzero(labels == label))
        if not 1 <= count <= len(rows):
            raise CapsnetError(f"cannot take {count} examples per class: class {label} has {len(rows)}")
        chosen.append(rows[:count])
    return examples.subset(torch.from_numpy(np.concatenate(chosen)).to(examples.labels.device))
