"""Options and learning rate schedules of a training."""

import pytest

from capsnet._support.errors import CapsnetError
from capsnet.training.config import TrainConfig, learning_rate


def test_paper_schedule_decays_by_4_percent_every_2000_steps_down_to_a_floor() -> None:
    config = TrainConfig(schedule="paper")
    assert learning_rate(config, 0, 300_000) == 0.001
    assert learning_rate(config, 2000, 300_000) == pytest.approx(0.00096)
    assert learning_rate(config, 299_999, 300_000) == pytest.approx(0.001 * 0.96**150, rel=1e-3)
    assert learning_rate(config, 10**6, 10**6) == 1e-6


def test_one_cycle_rises_to_the_peak_and_falls_to_almost_nothing() -> None:
    config = TrainConfig(schedule="one-cycle", learning_rate=0.01)
    rates = [learning_rate(config, step, 100) for step in range(100)]
    assert max(rates) == pytest.approx(0.01, rel=1e-3)
    assert rates.index(max(rates)) == 30
    assert rates[:31] == sorted(rates[:31])
    assert rates[30:] == sorted(rates[30:], reverse=True)
    assert rates[-1] < 1e-6


@pytest.mark.parametrize(
    "options",
    [{"epochs": 0}, {"batch_size": 0}, {"learning_rate": float("nan")}, {"learning_rate": 0}, {"steps": 0}],
)
def test_invalid_training_options_are_refused(options: dict) -> None:
    with pytest.raises(CapsnetError, match=next(iter(options))):
        TrainConfig(**options)
