"""Errors on a test set: how they are counted, and that neither batches nor workers change them."""

import pytest
import torch

from capsnet import CapsNet
from capsnet._support import dispatch
from capsnet._support.errors import NotFinite
from capsnet.data import load
from capsnet.inference.evaluation import Evaluation, evaluate, wilson_interval
from stripes import DATA, SMALL


def test_wilson_interval_against_published_values() -> None:
    # Newcombe (1998), table I, method 3
    for errors, n, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611)):
        assert wilson_interval(errors, n) == pytest.approx((low, high), abs=5e-5)
    with pytest.raises(ValueError, match="3 errors of 2"):
        wilson_interval(3, 2)


def test_a_pair_counts_only_if_both_digits_are_found_in_any_order() -> None:
    scores = torch.tensor([[0.9, 0.8, 0.1], [0.9, 0.1, 0.8], [0.1, 0.9, 0.8], [0.8, 0.9, 0.1]])
    labels = torch.tensor([[0, 1], [0, 1], [2, 1], [0, 1]])
    evaluation = Evaluation(scores, labels)
    assert evaluation.wrong.tolist() == [False, True, False, False]
    assert evaluation.error == 0.25


def test_nan_scores_raise_instead_of_giving_a_test_error() -> None:
    model = CapsNet(SMALL)
    with torch.no_grad():
        model.class_capsules.weight.fill_(torch.nan)
    with pytest.raises(NotFinite, match="not finite for 60 of 60 test examples"):
        evaluate(model, DATA.test)


@pytest.mark.parametrize("paths", ["fast", "plain"])
def test_answers_do_not_depend_on_the_batch_size(paths: str) -> None:
    model = CapsNet.from_pretrained("capsnet-mnist")
    test = load("mnist5k").test.subset(torch.arange(28))

    def scores(batch_size: int) -> torch.Tensor:
        if paths == "fast":
            return evaluate(model, test, batch_size).scores
        with dispatch.disabled():
            return evaluate(model, test, batch_size).scores

    whole = scores(128)
    for batch_size in (7, 1):
        part = scores(batch_size)
        assert torch.equal(part.argmax(1), whole.argmax(1))
        torch.testing.assert_close(part, whole, rtol=0, atol=2e-6)
    assert torch.equal(scores(7), scores(14)), "from four images on not even the bits do"
    assert torch.equal(scores(128), whole), "nor do they depend on what was computed before"


def test_an_error_is_reported_where_the_balanced_accuracy_is_not_defined() -> None:
    both = torch.tensor([[0, 1]])
    found = Evaluation(torch.ones(1, 2), both)  # the only image shows every class
    assert found.summary()["balanced_accuracy"] is None
    assert "nan" not in str(found)
