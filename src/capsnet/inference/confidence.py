"""How sure is a prediction, and does the image look like the training images?

Scores are ranked well but are not probabilities. A temperature, fitted on images that were not trained on, turns them
into probabilities. Typicality compares the reconstruction error with that of correctly classified training images.

All functions take arrays or tensors on the CPU, and return NumPy arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from capsnet.data.dataset import Source
from capsnet.inference.evaluation import BATCH_SIZE, batch_of, row_ranges
from capsnet.models.base import Classifier
from capsnet.models.protocols import decodes

Floats = NDArray[np.float64]

#: Smallest score: the logarithm of 0 is not finite.
TINY = 1e-12
#: Bounds of log T.
LOG_TEMPERATURE = (-4.0, 4.0)
#: Reference errors that are kept for each class: equally spaced quantiles.
KEPT = 201


class Reliability(NamedTuple):
    """Confidence against accuracy in equal bins of [0, 1]; NaN in empty bins."""

    confidence: Floats
    """Mean confidence of each bin."""
    accuracy: Floats
    """Share of correct predictions in each bin."""
    counts: NDArray[np.int64]
    """Number of predictions in each bin."""


def reliability(confidence: ArrayLike, correct: ArrayLike, bins: int = 15) -> Reliability:
    """Return the points of a reliability diagram.

    Args:
        confidence: probability of each predicted class, in [0, 1], shape (n,).
        correct: whether each prediction is correct, shape (n,).
        bins: number of bins of equal width.

    Raises:
        ValueError: the shapes differ, there are no predictions, or a confidence is outside [0, 1].

    >>> reliability([0.9, 0.8, 0.1], [True, False, False], bins=2).accuracy.tolist()
    [0.0, 0.5]
    """
    sure, right = _pair(confidence, correct, "reliability")
    if sure.min() < 0 or sure.max() > 1:
        raise ValueError(
            f"reliability: confidence from {sure.min():g} to {sure.max():g}; it must be in [0, 1]"
        )
    place = np.minimum((sure * bins).astype(np.int64), bins - 1)
    count = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        return Reliability(
            np.bincount(place, sure, bins) / count, np.bincount(place, right, bins) / count, count
        )


def expected_calibration_error(confidence: ArrayLike, correct: ArrayLike, bins: int = 15) -> float:
    """Return the mean gap between confidence and accuracy, weighted by bin size.

    Args:
        confidence, correct, bins: as for `reliability`.

    >>> expected_calibration_error([0.75, 0.75, 0.75, 0.75], [True, True, True, False])
    0.0
    """
    found = reliability(confidence, correct, bins)
    gaps = np.abs(found.confidence - found.accuracy)
    return float(np.nansum(gaps * found.counts) / found.counts.sum())


class RiskCoverage(NamedTuple):
    """Error among the most confident predictions, for every share of them."""

    coverage: Floats
    """Share of predictions that are kept, from 1/n to 1."""
    risk: Floats
    """Share of wrong predictions among those kept."""

    @property
    def area(self) -> float:
        """Return the mean risk over all coverages (AURC); lower is better."""
        return float(self.risk.mean())


def risk_coverage(confidence: ArrayLike, correct: ArrayLike) -> RiskCoverage:
    """Return the error that remains when the least confident predictions are refused.

    Equal confidences cannot be told apart, so they share the mean risk of their group.

    Args:
        confidence: any number that is larger for more certain predictions, shape (n,).
        correct: whether each prediction is correct, shape (n,).
    """
    sure, right = _pair(confidence, correct, "risk_coverage")
    _, group, count = np.unique(-sure, return_inverse=True, return_counts=True)
    wrong = (np.bincount(group, 1 - right) / count)[np.sort(group)]
    kept = np.arange(1, len(wrong) + 1)
    return RiskCoverage(kept / len(wrong), np.cumsum(wrong) / kept)


def calibrated(scores: ArrayLike, temperature: float = 1.0) -> Floats:
    """Turn scores into probabilities: score^(1/T), divided by their sum.

    This is softmax(log(score) / T). For a network that ends in softmax it is temperature scaling (Guo et al. 2017);
    for a capsule network, the lengths of the class capsules take the place of probabilities. T never changes which
    class is the most likely.

    Args:
        scores: at least 0, shape (n, classes).
        temperature: T > 0, from `fit_temperature`.

    >>> calibrated([[0.9, 0.3]]).round(2).tolist()
    [[0.75, 0.25]]
    """
    logits = np.log(np.maximum(np.asarray(scores, np.float64), TINY)) / temperature
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: Floats = powers / powers.sum(axis=1, keepdims=True)
    return probabilities


def fit_temperature(scores: ArrayLike, labels: ArrayLike) -> float:
    """Return the temperature that gives held-out images the best log-likelihood.

    As in Platt (1999), each label counts as (n + 1)/(n + 2) instead of 1. So a few images without an error do not make
    every later prediction certain.

    Args:
        scores: of images that were not trained on, shape (n, classes).
        labels: their class numbers, shape (n,).

    Raises:
        ValueError: there are no images, or scores and labels do not fit.
    """
    from scipy.optimize import minimize_scalar

    values, numbers = np.asarray(scores, np.float64), np.asarray(labels, np.int64)
    if values.ndim != 2 or numbers.shape != values.shape[:1] or not len(values):
        raise ValueError(f"fit_temperature: scores {values.shape} and labels {numbers.shape}")
    n, classes = values.shape
    doubt = 1 / (n + 2)
    targets = np.full((n, classes), doubt / (classes - 1))
    targets[np.arange(n), numbers] = 1 - doubt

    def loss(log_temperature: float) -> float:
        probabilities = calibrated(values, float(np.exp(log_temperature)))
        return float(-(targets * np.log(np.maximum(probabilities, TINY))).sum() / n)

    return float(np.exp(minimize_scalar(loss, bounds=LOG_TEMPERATURE, method="bounded").x))


@torch.no_grad()
def reconstruction_errors(model: Classifier, source: Source, batch_size: int = BATCH_SIZE) -> Floats:
    """Return each image's squared pixel error, drawn from its predicted class.

    Args:
        model: with a decoder, in evaluation mode.
        source: the images, without augmentation.
        batch_size: images per batch.

    Raises:
        ValueError: the model has no decoder.
    """
    device = next(model.parameters()).device
    there = source.to(device)
    parts = [
        squared_errors(model, batch_of(there, rows, device).images)
        for rows in row_ranges(len(source), batch_size)
    ]
    return np.concatenate(parts)


@torch.no_grad()
def squared_errors(model: Classifier, images: torch.Tensor) -> Floats:
    """Return the same for one batch of images in [0, 1]."""
    if not decodes(model):
        raise ValueError(f"squared_errors: this {model.architecture} has no decoder")
    drawn = model.decode(model.class_poses(images))
    errors: Floats = (drawn - images).square().flatten(1).sum(dim=1).double().cpu().numpy()
    return errors


def typical_errors(
    errors: ArrayLike, labels: ArrayLike, predictions: ArrayLike, classes: int
) -> list[Floats]:
    """Return the sorted errors of correctly classified training images, by class.

    At most `KEPT` equally spaced quantiles for each class. A class without a correct image gets those of all classes.

    Args:
        errors: reconstruction errors of training images, shape (n,).
        labels, predictions: their class numbers, shape (n,).
        classes: number of classes.
    """
    values, true = np.asarray(errors, np.float64), np.asarray(labels)
    right = true == np.asarray(predictions)
    whole = values[right] if right.any() else values
    groups = [values[right & (true == number)] for number in range(classes)]
    return [_thinned(group if len(group) else whole) for group in groups]


def typicality(errors: ArrayLike, predictions: ArrayLike, reference: Sequence[ArrayLike]) -> Floats:
    """Return the share of correct training images that were drawn no better, in per cent.

    100: drawn as well as the best images of that class. Near 0: drawn worse than all of them, so the image is unlike
    the training images. This is a conformal p-value, (1 + number at least as large) / (1 + number).

    Args:
        errors: reconstruction errors, shape (n,).
        predictions: predicted class numbers, shape (n,).
        reference: sorted errors of each class, from `typical_errors`.
    """
    values, said = np.asarray(errors, np.float64), np.asarray(predictions)
    shares = np.empty(len(values))
    for number in np.unique(said):
        known, here = np.asarray(reference[number], np.float64), said == number
        at_least = len(known) - np.searchsorted(known, values[here], side="left")
        shares[here] = (1 + at_least) / (1 + len(known))
    return 100 * shares


def _thinned(errors: Floats) -> Floats:
    if len(errors) <= KEPT:
        return np.sort(errors)
    quantiles: Floats = np.quantile(errors, np.linspace(0, 1, KEPT))
    return quantiles


def _pair(confidence: ArrayLike, correct: ArrayLike, owner: str) -> tuple[Floats, Floats]:
    sure, right = np.asarray(confidence, np.float64), np.asarray(correct, np.float64)
    if sure.ndim != 1 or sure.shape != right.shape or not len(sure):
        raise ValueError(
            f"{owner}: confidence {sure.shape} and correct {right.shape}; give both for n images"
        )
    return sure, right
