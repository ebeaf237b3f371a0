"""Test on held-out training digits too: 30,000 test digits decide what 10,000 leave open."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from capsnet.data.dataset import Dataset, Examples
from capsnet.experiments.recipe import Scale, Trained, Variant, load_data
from capsnet.experiments.record import Findings
from capsnet.inference.evaluation import Evaluation

#: Number of MNIST's training digits that are held out, and tested on after the published test digits.
HELD_OUT = 20_000
#: Fingerprint of the remaining training digits.
FEWER = f"mnist without {HELD_OUT:,} held-out training digits"
#: Deviation of experiments that are tested this way.
DEVIATION = (
    f"trained on {60_000 - HELD_OUT:,} of the 60,000 training digits, and tested on the other {HELD_OUT:,} and the "
    "10,000 test digits together: 10,000 cannot decide differences of one digit in 1,000"
)


def with_fewer(variants: Iterable[Variant], scale: Scale) -> tuple[Variant, ...]:
    """Return variants that train on the remaining digits, at the quick scale only."""
    return tuple(replace(variant, pixels=FEWER) if scale == "quick" else variant for variant in variants)


def load_fewer(variant: Variant, seed: int, data_dir: Path | None) -> Dataset:
    """Load the data set of a variant; for a variant of `with_fewer`, with the held-out digits in the test set.

    Raises:
        CapsnetError: the data set is missing or damaged.
    """
    dataset = load_data(variant, seed, data_dir)
    return split(dataset) if variant.pixels == FEWER else dataset


def split(dataset: Dataset, held_out: int = HELD_OUT) -> Dataset:
    """Move training images, chosen at random with a fixed seed, to the end of the test set."""
    train, test = dataset.train, dataset.test
    assert isinstance(train, Examples)
    assert isinstance(test, Examples)
    # NumPy promises that RandomState never changes: the same images are always held out.
    order = torch.from_numpy(np.random.RandomState(0).permutation(len(train)))
    out, kept = (rows.sort().values for rows in (order[:held_out], order[held_out:]))
    return replace(
        dataset,
        train=train.subset(kept),
        test=replace(
            test,
            images=torch.cat([test.images, train.images[out]]),
            labels=torch.cat([test.labels, train.labels[out]]),
        ),
        provenance=f"{dataset.provenance} Of the training images, {held_out:,}, chosen at random with a fixed seed, "
        f"are not trained on; they follow the {len(test):,} test images as further test images.",
    )


def both_errors(trained: Trained) -> Findings:
    """Return the error on all test images, named "test", and on the published ones alone, named "published"."""
    own = trained.evaluation
    if trained.variant.pixels != FEWER:
        return Findings({"test": own, "published": own})
    count = len(own.labels) - HELD_OUT
    return Findings({"test": own, "published": Evaluation(own.scores[:count], own.labels[:count])})
