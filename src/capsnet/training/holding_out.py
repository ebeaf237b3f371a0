"""Hold out training images, to calibrate probabilities with."""

from __future__ import annotations

from dataclasses import replace

from capsnet._support.errors import CapsnetError
from capsnet.data.arrays import held_out
from capsnet.data.augmentation import RandomPlacement
from capsnet.data.dataset import Dataset, Examples
from capsnet.data.fixed_random import freeze
from capsnet.training.config import TrainConfig

#: Random numbers of the places of held-out images; see `capsnet.data.fixed_random`.
STREAM = 7


def hold_out(dataset: Dataset, config: TrainConfig) -> Dataset:
    """Move the share `config.hold_out` of each class from the training to the validation images.

    The choice depends only on the seed. A data set with a validation split keeps it.

    Raises:
        CapsnetError: the images show several classes each, or a class has one image only.
    """
    if not config.hold_out or dataset.validation is not None:
        return dataset
    if not isinstance(dataset.train, Examples):
        raise CapsnetError("hold_out needs one class in each image; leave it out for this data set")
    chosen = held_out(dataset.train.labels, config.hold_out, config.seed)
    train, validation = (dataset.train.subset(which.nonzero()[:, 0]) for which in (~chosen, chosen))
    # What augments the training images belongs to training; but a random place belongs to the data.
    places = validation.augment if isinstance(validation.augment, RandomPlacement) else None
    kept = replace(validation, augment=places or getattr(dataset.test, "augment", None), weights=None)
    return replace(dataset, train=train, validation=freeze(kept, STREAM) if places else kept)
