"""Which examples are trained on, and how often."""

from dataclasses import replace

import pytest
import torch

import capsnet
from capsnet import CapsNet, CapsnetError
from capsnet.data import Examples
from capsnet.training.batches import BatchSchedule, check_class_weights
from capsnet.training.config import TrainConfig
from stripes import CONFIG, DATA, SMALL


def examples(weights: list[float] | None, labels: list[int]) -> Examples:
    images = torch.zeros(len(labels), 1, 2, 2, dtype=torch.uint8)
    return Examples(images, torch.tensor(labels), weights=None if weights is None else torch.tensor(weights))


def counts(config: TrainConfig, source: Examples, epochs: int) -> torch.Tensor:
    schedule = BatchSchedule.of(config, source)
    orders = [schedule.epoch(epoch)[0] for epoch in range(epochs)]
    return torch.stack([order.bincount(minlength=len(source)) for order in orders])


def test_an_example_is_drawn_in_proportion_to_its_weight() -> None:
    weights = [0.0, 0.5, 1.0, 2.5, 4.0, 0.0]
    drawn = counts(CONFIG, examples(weights, [0, 1, 0, 1, 0, 1]), epochs=2000)
    expected = 6 * torch.tensor(weights) / 8
    assert ((drawn - expected).abs() < 1).all()  # rounded up or down
    assert drawn.double().mean(dim=0).tolist() == pytest.approx(expected.tolist(), abs=0.05)


def test_balanced_classes_are_drawn_equally_often() -> None:
    source = examples(None, [0] * 90 + [1] * 9 + [2])
    drawn = counts(replace(CONFIG, class_weights="balanced"), source, epochs=30).double().mean(dim=0)
    by_class = [drawn[source.labels == number].sum().item() for number in range(3)]
    assert by_class == pytest.approx([100 / 3] * 3, abs=0.5)
    given = counts(replace(CONFIG, class_weights=(1.0, 10.0, 90.0)), source, epochs=30).double().mean(dim=0)
    assert torch.equal(given, drawn)


def test_equal_weights_are_the_order_without_weights() -> None:
    labels = [0, 1] * 20
    plain = BatchSchedule.of(CONFIG, examples(None, labels))
    for source, config in (
        (examples([3.0] * 40, labels), CONFIG),
        (examples(None, labels), replace(CONFIG, class_weights="balanced")),
    ):
        assert torch.equal(BatchSchedule.of(config, source).epoch(4)[0], plain.epoch(4)[0])


def test_weights_that_do_not_fit_are_refused() -> None:
    for weights in ([1.0], [-1.0, 1.0], [0.0, 0.0], [float("nan"), 1.0]):
        with pytest.raises(ValueError, match="weights"):
            examples(weights, [0, 1])
    with pytest.raises(CapsnetError, match="class_weights has 2 numbers for 3 classes"):
        check_class_weights(replace(CONFIG, class_weights=(1.0, 2.0)), DATA)
    with pytest.raises(CapsnetError, match="class_weights has 4 numbers for 3 classes"):
        capsnet.train(CapsNet(SMALL), DATA, steps=1, class_weights=(1.0, 1.0, 1.0, 5.0))
