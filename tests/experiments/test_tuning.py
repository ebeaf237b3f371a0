"""A learning rate for each variant: chosen on training images only, once, and recorded."""

from dataclasses import replace
from math import inf
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from capsnet._support.errors import CapsnetError, NotFinite
from capsnet.data import Dataset, Examples, load
from capsnet.data.overlapping import Pairs
from capsnet.experiments import EXPERIMENTS, Options, tuning
from capsnet.experiments.comparison import comparison
from capsnet.experiments.progress import Unwatched
from capsnet.experiments.recipe import Variant
from capsnet.experiments.record import record_path
from capsnet.experiments.record_groups import groups
from capsnet.experiments.tuning import RATES, inner_split, tuned, with_own_rates
from capsnet.training.config import Stop
from made_up import runs


def trial(error: float, steps: int = 700) -> Any:
    return SimpleNamespace(
        evaluation=SimpleNamespace(error=error), run=SimpleNamespace(result=lambda: {"steps": steps})
    )


@pytest.mark.quick
def test_a_learning_rate_is_chosen_on_training_images_only() -> None:
    dataset = load("mnist5k")
    inner = inner_split(dataset)
    assert isinstance(dataset.train, Examples)
    assert isinstance(inner.train, Examples)
    assert isinstance(inner.test, Examples)
    counts = [torch.bincount(half.labels).tolist() for half in (inner.train, inner.test)]
    assert counts == [[320] * 10, [80] * 10]
    together = torch.cat((inner.train.images, inner.test.images))
    assert sorted(image.numpy().tobytes() for image in together) == sorted(
        image.numpy().tobytes() for image in dataset.train.images
    ), "each training image once, and no test image"
    assert inner_split(dataset).test.labels.tolist() == inner.test.labels.tolist()


def test_each_model_gets_the_rate_at_which_it_makes_the_fewest_errors(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    dataset, asked = load("mnist5k"), []
    errors = {"r3": (0.3, 0.1, 0.2), "cnn-same-stem": (0.1, 0.1, 0.1), "cnn-max-pool": (inf, 0.3, 0.2)}

    def trained(variant: Variant, seed: int, data: Dataset, *_: Any, **__: Any) -> Any:
        assert data.test.labels.tolist() == inner_split(dataset).test.labels.tolist(), "of training images"
        asked.append((variant.name, seed, len(data.train), variant.settings(0)))
        error = errors[variant.name][RATES.index(variant.training.learning_rate)]
        if error == inf:
            raise NotFinite("too large")
        return trial(error)

    monkeypatch.setattr(tuning, "train_variant", trained)
    variants = comparison(dataset, None).variants("quick")[:3]
    chosen = tuned(variants, dataset, Options(work=tmp_path), Unwatched())
    assert [variant.training.learning_rate for variant in chosen] == [RATES[1], RATES[0], RATES[2]]
    assert chosen[2].rate_errors == {"0.0003": 0.2, "0.001": inf, "0.003": 0.3}
    assert {(seed, count) for _, seed, count, _ in asked} == {(tuning.SEED, 3200)}
    counted = {variant.settings(0) for variant in chosen}
    assert not counted & {settings for *_, settings in asked}, "what chooses is not what counts"
    errors["r3"] = (inf, inf, inf)
    with pytest.raises(CapsnetError, match="diverges at every learning rate"):
        tuned(variants, dataset, Options(work=tmp_path), Unwatched())


@pytest.mark.quick
def test_held_out_pairs_share_no_digit_with_training_pairs() -> None:
    inner = inner_split(load("multimnist5k"))
    assert isinstance(inner.train, Pairs)
    source: Any = inner.test
    sides = [
        {image.numpy().tobytes() for image in part.examples.images} for part in (inner.train, source.source)
    ]
    assert [len(side) for side in sides] == [3200, 800]
    assert not sides[0] & sides[1]
    first, again = (source.batch(torch.arange(4)).images for _ in range(2))
    assert torch.equal(first, again), "every rate is judged on the same pairs"


@pytest.mark.quick
def test_rates_are_judged_on_objects_that_were_not_trained_on() -> None:
    images, labels = torch.zeros(60, 1, 4, 4, dtype=torch.uint8), torch.arange(60) % 2
    toys = labels + 2 * (torch.arange(60) // 12)  # 5 toys in each class, 6 views of each
    train = Examples(images, labels, groups=toys)
    inner = inner_split(Dataset("toys", train, train, ("a", "b"), (1, 4, 4), "made up"))
    assert isinstance(inner.train, Examples)
    assert isinstance(inner.test, Examples)
    assert inner.train.groups is not None
    assert inner.test.groups is not None
    assert inner.test.labels.bincount().tolist() == [6, 6]
    assert not set(inner.train.groups.tolist()) & set(inner.test.groups.tolist())


def test_a_variant_that_stops_at_a_target_gets_the_rate_that_is_there_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    results = {RATES[0]: trial(0.039, 900), RATES[1]: trial(0.040, 300), RATES[2]: trial(0.2, 5000)}
    monkeypatch.setattr(
        tuning, "train_variant", lambda variant, *_, **__: results[variant.training.learning_rate]
    )
    dataset = load("mnist5k")
    variant = replace(comparison(dataset, None).variants("quick")[0], stop=Stop(0.04))
    (chosen,) = tuned([variant], dataset, Options(work=tmp_path), Unwatched())
    assert chosen.training.learning_rate == RATES[1]


@pytest.mark.quick
def test_records_keep_the_rate_of_each_variant(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    table1 = EXPERIMENTS["table1"]
    by_name = {variant.name: variant for variant in table1.variants("quick")}
    r3, r1 = by_name["r3-reconstruction"], by_name["r1-reconstruction"]
    options = Options(out=tmp_path, work=tmp_path / "runs", variants=(r3.name, r1.name), device="cpu")
    (record,) = runs(r3.name, [1000], "quick")
    slow = tuning.with_rate(r3, 0.0003)
    record = replace(
        record,
        settings=slow.settings(record.seed),
        training={**record.training, "learning_rate": 0.0003},
        rate_errors={"0.0003": 0.1, "0.003": None},
    )
    path = record_path(tmp_path, "table1", r3.name, "quick", record.seed)
    record.write(path)
    asked: list[str] = []

    def choose(variants: list[Variant], *_: Any) -> list[Variant]:
        asked.extend(variant.name for variant in variants)
        return [tuning.with_rate(variant, 0.001) for variant in variants]

    monkeypatch.setattr(tuning, "tuned", choose)
    loaded = replace(table1, load=lambda *_: load("mnist5k"))
    rated = {
        variant.name: variant for variant in with_own_rates(loaded, options, Unwatched()).variants("quick")
    }
    assert asked == [r1.name], "one rate is recorded, and the other variants are not asked for"
    assert rated[r3.name].training.learning_rate == 0.0003
    assert rated[r3.name].rate_errors == {"0.0003": 0.1, "0.003": inf}
    assert rated[r1.name].training.learning_rate == 0.001
    asked.clear()
    plain = with_own_rates(loaded, options).variants("quick")
    assert not asked, "without a watch no rate is chosen"
    assert plain[2] == r1
    assert with_own_rates(loaded, replace(options, scale="full"), Unwatched()) is loaded
    assert with_own_rates(replace(loaded, own_rates=False), options, Unwatched()).own_rates is False
    replace(record, settings="other").write(path)
    with pytest.raises(CapsnetError, match="holds the result of other settings"):
        with_own_rates(loaded, options, Unwatched())
    assert not asked, "refused before anything is trained"


@pytest.mark.quick
def test_records_at_a_rate_of_their_own_belong_to_the_recipe() -> None:
    variant = next(v for v in EXPERIMENTS["table1"].variants("quick") if v.name == "r3-reconstruction")
    slow = tuning.with_rate(variant, 0.0003)
    (record,) = runs(variant.name, [1000], "quick")
    training = {**record.training, "learning_rate": 0.0003}
    record = replace(record, settings=slow.settings(record.seed), training=training)
    (stale,) = groups([record])
    assert not stale.records, "a rate that was not chosen is another recipe"
    (own,) = groups([replace(record, rate_errors={"0.0003": 0.1})])
    assert len(own.records) == 1


def test_a_record_from_before_rates_were_chosen_keeps_its_rate(tmp_path: Path) -> None:
    (one,) = runs("r3-reconstruction", [10], "quick")
    replace(one, rate_errors={}).write(record_path(tmp_path, "table1", one.variant, "quick", 0))
    options = Options(scale="quick", out=tmp_path, variants=(one.variant,))
    recorded = tuning._recorded(EXPERIMENTS["table1"], EXPERIMENTS["table1"].variants("quick")[0], options)
    assert recorded is not None
    assert recorded.training.learning_rate == one.training["learning_rate"]
    assert recorded.rate_errors == {}
