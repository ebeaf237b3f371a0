"""Training digits that are held out and tested on: which ones, and that nothing trains on them."""

from dataclasses import replace

import pytest
import torch

from capsnet.data.dataset import Dataset, Examples
from capsnet.experiments import EXPERIMENTS
from capsnet.experiments.held_out import FEWER, HELD_OUT, both_errors, split, with_fewer
from capsnet.experiments.recipe import Trained
from capsnet.experiments.tuning import inner_split
from capsnet.inference.evaluation import Evaluation


def numbered(train: int, test: int) -> Dataset:
    """Images that are all different: each holds its own number, in two pixels."""

    def examples(numbers: torch.Tensor) -> Examples:
        pixels = torch.stack([numbers // 256, numbers % 256], dim=1).to(torch.uint8)
        return Examples(pixels[:, None, None], numbers % 10)

    first, second = torch.arange(train), torch.arange(train, train + test)
    return Dataset("numbered", examples(first), examples(second), tuple("0123456789"), (1, 1, 2), "Made up.")


def numbers(examples: object) -> list[int]:
    assert isinstance(examples, Examples)
    return [256 * int(high) + int(low) for high, low in examples.images.flatten(1)]


def test_held_out_images_follow_the_test_images_and_are_not_trained_on() -> None:
    dataset = split(numbered(300, 50), held_out=100)
    trained, tested = numbers(dataset.train), numbers(dataset.test)
    assert tested[:50] == list(range(300, 350))
    assert len(trained) == 200
    assert sorted(trained + tested) == list(range(350))
    assert dataset.test.batch(torch.arange(150)).labels[:, 0].tolist() == [number % 10 for number in tested]
    assert numbers(split(numbered(300, 50), held_out=100).test) == tested, "the same ones every time"
    judged = inner_split(dataset)
    assert set(numbers(judged.train) + numbers(judged.test)) == set(trained), "nor are rates chosen on them"
    assert "100, chosen at random" in dataset.provenance


@pytest.mark.parametrize("name", ["table1", "routing-iterations", "routings"])
def test_only_short_trainings_are_tested_on_held_out_digits(name: str) -> None:
    """The published network trains on all digits, as the paper's does."""
    experiment = EXPERIMENTS[name]
    digits = {v.name: v.pixels for v in experiment.variants("quick") if v.training.data == "mnist"}
    assert set(digits.values()) == {FEWER}
    assert not any(variant.pixels for variant in experiment.variants("full"))


def test_the_error_on_the_published_test_images_is_kept_beside_the_error_on_all() -> None:
    variant = EXPERIMENTS["table1"].variants("quick")[0]
    right = torch.zeros(10 + HELD_OUT, dtype=torch.long)
    right[:4] = 1  # four wrong answers, all of them on published test images
    evaluation = Evaluation(torch.tensor([[1.0, 0.0]]).repeat(len(right), 1), right[:, None])
    trained = Trained(variant, 0, "quick", None, None, None, evaluation, None)  # type: ignore[arg-type]
    found = both_errors(trained).tests
    assert (len(found["published"].labels), found["published"].error) == (10, 0.4)
    assert found["test"].error == 4 / len(right)
    whole = both_errors(replace(trained, variant=replace(variant, pixels=None))).tests
    assert whole["published"].error == whole["test"].error


def test_runs_on_fewer_digits_are_not_those_on_all() -> None:
    whole = EXPERIMENTS["dimensions"].variants("quick")[0]
    (fewer,) = with_fewer([whole], "quick")
    assert fewer.settings(0) != whole.settings(0)
    assert with_fewer([whole], "full") == (whole,)
