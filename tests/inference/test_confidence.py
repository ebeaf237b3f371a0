"""Calibration, risk against coverage, and typicality."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import softmax
from sklearn.metrics import roc_auc_score

from capsnet import CapsNet
from capsnet.data import Examples
from capsnet.inference.confidence import (
    KEPT,
    calibrated,
    expected_calibration_error,
    fit_temperature,
    reconstruction_errors,
    reliability,
    risk_coverage,
    typical_errors,
    typicality,
)
from capsnet.inference.evaluation import evaluate
from stripes import CONFIG, DATA, SMALL, start


def sampled(n: int, temperature: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Softmax scores of logits, and labels that are drawn from the softmax of logits / temperature."""
    generator = np.random.default_rng(seed)
    logits = 3 * generator.standard_normal((n, 5))
    cumulative = softmax(logits / temperature, axis=1).cumsum(axis=1)
    return softmax(logits, axis=1), (generator.random((n, 1)) > cumulative).sum(axis=1).clip(max=4)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_that_made_the_labels_is_found_and_calibrates_other_images(
    temperature: float,
) -> None:
    found = fit_temperature(*sampled(20_000, temperature))
    assert found == pytest.approx(temperature, rel=0.05)
    scores, labels = sampled(20_000, temperature, seed=1)
    probabilities = calibrated(scores, found)
    correct = probabilities.argmax(axis=1) == labels
    assert expected_calibration_error(probabilities.max(axis=1), correct) < 0.015
    assert (probabilities.argmax(axis=1) == scores.argmax(axis=1)).all()
    if temperature == 2.5:
        assert expected_calibration_error(scores.max(axis=1), correct) > 0.2


def test_a_few_images_without_an_error_do_not_make_everything_certain() -> None:
    scores, labels = np.array([[0.9, 0.1, 0.1], [0.1, 0.8, 0.1]] * 5), np.array([0, 1] * 5)
    most = calibrated(scores, fit_temperature(scores, labels)).max(axis=1)
    assert 0.85 < most.min() < most.max() < 0.95  # 11 of 12 by Platt


def test_reliability_and_its_error_are_those_of_a_hand_calculation() -> None:
    confidence, correct = [0.05, 0.95, 0.85, 0.95, 1.0], [False, True, False, True, False]
    found = reliability(confidence, correct, bins=10)
    assert found.counts.tolist() == [1, 0, 0, 0, 0, 0, 0, 0, 1, 3]
    assert found.accuracy[-1] == pytest.approx(2 / 3)
    assert np.isnan(found.confidence[1])
    by_hand = (0.05 + 0.85 + 3 * abs(2.9 / 3 - 2 / 3)) / 5
    assert expected_calibration_error(confidence, correct, bins=10) == pytest.approx(by_hand)
    with pytest.raises(ValueError, match=r"must be in \[0, 1\]"):
        reliability([1.5], [True])
    with pytest.raises(ValueError, match="give both for n images"):
        reliability([], [])


def test_refusing_the_least_confident_lowers_the_risk_and_ties_are_shared() -> None:
    found = risk_coverage([0.9, 0.2, 0.8, 0.2], [True, True, True, False])
    assert found.coverage.tolist() == [0.25, 0.5, 0.75, 1]
    assert found.risk.tolist() == pytest.approx([0, 0, 0.5 / 3, 0.25])
    assert found.area == pytest.approx((0.5 / 3 + 0.25) / 4)


def test_typicality_is_a_percentile_within_the_predicted_class() -> None:
    errors = np.concatenate([np.arange(1000.0), [5000.0], np.arange(1000.0) + 10_000])
    labels = np.repeat([0, 1], [1001, 1000])
    predictions = labels.copy()
    predictions[1000] = 1  # a wrong answer does not count as typical
    reference = typical_errors(errors, labels, predictions, classes=3)
    assert [len(one) for one in reference] == [KEPT] * 3
    found = typicality([-1, 499.5, 2000, 10_500, 500], [0, 0, 0, 1, 1], reference)
    assert found == pytest.approx([100, 50, 0, 50, 100], abs=0.6)
    assert found[2] > 0


def test_noise_is_less_typical_than_test_images(tmp_path: Path) -> None:
    model = start(tmp_path / "run", DATA, CONFIG)
    assert isinstance(DATA.train, Examples)
    assert isinstance(DATA.test, Examples)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, DATA.test.images.shape, generator=generator, dtype=torch.uint8)

    def measured(examples: Examples) -> tuple[np.ndarray, np.ndarray]:
        said = evaluate(model, examples).predictions[:, 0].numpy()
        return reconstruction_errors(model.eval(), examples, batch_size=50), said

    errors, said = measured(DATA.train)
    reference = typical_errors(errors, DATA.train.labels, said, classes=3)
    test = typicality(*measured(DATA.test), reference)
    strange = typicality(*measured(Examples(noise, DATA.test.labels)), reference)
    assert roc_auc_score([1] * len(test) + [0] * len(strange), [*test, *strange]) > 0.9


def test_a_model_without_a_decoder_has_no_reconstruction_error() -> None:
    with pytest.raises(ValueError, match="has no decoder"):
        reconstruction_errors(CapsNet(replace(SMALL, decoder=None)), DATA.test)
