"""What a run knows about its own certainty: confidence.json beside the weights.

The temperature is fitted on images that were held out from training, the reference errors on training images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, Self

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from capsnet._support.errors import CapsnetError
from capsnet._support.files import read_json, write_json
from capsnet.data.dataset import Examples, Source
from capsnet.inference.confidence import (
    Floats,
    calibrated,
    fit_temperature,
    reconstruction_errors,
    squared_errors,
    typical_errors,
    typicality,
)
from capsnet.inference.evaluation import evaluate
from capsnet.models.base import Classifier
from capsnet.models.protocols import decodes

FILE = "confidence.json"
#: Training images whose reconstruction errors are measured, evenly spaced.
REFERENCE_IMAGES = 5000


@dataclass(frozen=True)
class Confidence:
    """Calibrated probabilities and typicality of one model's predictions."""

    temperature: float | None
    """None: no images were held out, so a probability would not be calibrated."""
    calibration_images: int
    """Number of images that the temperature was fitted on."""
    reference: Sequence[Sequence[float]] | None
    """Sorted reconstruction errors of correct training images, for each class; None without a decoder."""

    @classmethod
    def fit(cls, model: Classifier, train: Source, validation: Source | None) -> Self:
        """Measure a trained model.

        Args:
            model: in evaluation mode.
            train: the training images. They are taken without augmentation if they have none of their own.
            validation: images that were held out from training, or None.
        """
        device = next(model.parameters()).device
        temperature, reference, count = None, None, 0
        if validation is not None:
            held = evaluate(model, validation.to(device))
            if held.classes_each == 1:
                temperature, count = fit_temperature(held.scores, held.labels[:, 0]), held.n
        if _draws(model) and isinstance(train, Examples):
            picks = torch.linspace(0, len(train) - 1, min(len(train), REFERENCE_IMAGES)).long()
            some = train.subset(picks).to(device)
            answers = evaluate(model, some)
            if answers.classes_each == 1:
                errors = reconstruction_errors(model, some)
                classes = model.config.num_classes
                own = typical_errors(errors, answers.labels[:, 0], answers.predictions[:, 0], classes)
                reference = [[float(f"{error:.6g}") for error in one] for one in own]
        return cls(temperature, count, reference)

    def probabilities(self, scores: ArrayLike) -> Floats | None:
        """Return calibrated probabilities (n, classes); None without a temperature."""
        return None if self.temperature is None else calibrated(scores, self.temperature)

    def typicality(self, model: Classifier, images: Tensor, predictions: ArrayLike) -> Floats | None:
        """Return how typical images are for their predicted class, in per cent.

        None without a decoder. See `capsnet.inference.confidence.typicality`.
        """
        if self.reference is None or not _draws(model):
            return None
        return typicality(squared_errors(model, images), predictions, self.reference)

    def save(self, folder: Path) -> None:
        """Write confidence.json.

        Raises:
            CannotWrite: the disk is full, or the folder is not writable.
        """
        write_json(folder / FILE, vars(self))

    @classmethod
    def load(cls, folder: Path, classes: int) -> Self | None:
        """Read confidence.json; None if there is none.

        Raises:
            CapsnetError: the file is damaged, or is of a model with another number of classes.
        """
        path = folder / FILE
        if not path.exists():
            return None
        found = read_json(path)
        try:
            temperature, reference = found["temperature"], found["reference"]
            whole = (temperature is None or (_is_number(temperature) and temperature > 0)) and (
                reference is None or (len(reference) == classes and all(map(_are_sorted, reference)))
            )
            if not whole or set(found) != {"temperature", "calibration_images", "reference"}:
                raise ValueError
            return cls(temperature, int(found["calibration_images"]), reference)
        except (ValueError, TypeError, LookupError) as error:
            raise CapsnetError(
                f"{path} is damaged, or of another model; delete it, or train the model again"
            ) from error


def _draws(model: Classifier) -> bool:
    return decodes(model)  # not narrowed to the protocol: other functions want the class


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def _are_sorted(values: Any) -> bool:
    return (
        isinstance(values, list)
        and bool(values)
        and all(map(_is_number, values))
        and values == sorted(values)
    )
