"""How often verdicts err, and how many seeds they need: made-up experiments at the spreads that the records show."""

from pathlib import Path

import numpy as np
import pytest

from capsnet.experiments.error_rates import SEEDS, Case, cases, planned_rates, rates, section
from capsnet.experiments.means import Mean
from capsnet.experiments.record import read_records
from capsnet.experiments.record_groups import groups
from capsnet.experiments.spread import LARGEST, LEAST, MOST, Spread, for_difference, for_equivalence, planned
from capsnet.experiments.statistics import Paired, paired_difference
from capsnet.experiments.verdicts import verdict
from made_up import run_on

RESULTS = Path(__file__).parents[2] / "results"


@pytest.fixture(scope="module")
def seen() -> list[Case]:
    """The claims of the records that come with the project."""
    if not RESULTS.is_dir():
        pytest.skip("reads results/")
    return cases(groups(read_records(RESULTS)))


def test_at_the_spreads_that_records_show_five_in_a_hundred_verdicts_are_false_at_most(
    seen: list[Case],
) -> None:
    random, draws = np.random.default_rng(1), 20_000
    chance = 4 * (0.05 * 0.95 / draws) ** 0.5
    found_before = 0.0
    for seeds in SEEDS:
        of_claims = [rates(case, seeds, random, draws) for case in seen]
        for wrong in ("false_difference", "false_equivalence"):
            shares = [getattr(one, wrong) for one in of_claims]
            assert max(shares) <= 0.05 + chance, (seeds, wrong)
            assert np.mean(shares) <= 0.05
        found = np.mean([one.double + one.equivalence for one in of_claims])
        assert found > found_before, "more seeds find more"
        found_before = float(found)


def test_to_plan_by_the_first_seeds_hardly_makes_more_verdicts_false(seen: list[Case]) -> None:
    random = np.random.default_rng(2)
    of_claims = [planned_rates(case, random, 2_000) for case in seen]
    for wrong in ("false_difference", "false_equivalence"):
        shares = [getattr(one, wrong) for one in of_claims]
        assert np.mean(shares) <= 0.05
        assert max(shares) <= 0.06 + 4 * (0.06 * 0.94 / 2_000) ** 0.5


SPREADS = [
    Spread(0.8),
    Spread(0.8, 20.0, 30.0, 10_000),
    Spread(0.0, 25.0, 60.0, 10_000),
    Spread(1.0, 0.5, 1.0, 25),
]


@pytest.mark.parametrize("spread", SPREADS)
def test_the_seeds_needed_find_what_there_is_four_times_of_five(spread: Spread) -> None:
    random = np.random.default_rng(3)
    case = Case(spread, 1.0, 6)
    for needs, power in (
        (for_difference(spread, 1.0, 6), "difference"),
        (for_equivalence(spread, 1.0), "equivalence"),
    ):
        assert 4 < needs < MOST
        assert getattr(rates(case, needs, random), power) == pytest.approx(0.8, abs=0.07)
        assert getattr(rates(case, needs * 2 // 3, random), power) < 0.75


@pytest.mark.quick
def test_a_plan_depends_on_the_spread_and_keeps_within_bounds() -> None:
    seeds = [planned(Spread(spread), 1.0, 4) for spread in (0.1, 0.9, 1.2, 50.0)]
    assert seeds[0] == LEAST, "little varies"
    assert LEAST < seeds[1] < seeds[2] <= LARGEST
    assert seeds[3] == LEAST, "no number of seeds that can be had would tell"
    assert planned(Spread(np.array([0.1, 0.9, 1.2, 50.0])), 1.0, 4).tolist() == seeds
    too_few_images = Spread(0.0, 50.0, 0.0, 100)
    assert for_difference(too_few_images, 1.0, 1) == for_equivalence(too_few_images, 1.0) == MOST + 1


@pytest.mark.quick
@pytest.mark.parametrize("grouped", [False, True])
def test_a_spread_gives_the_standard_errors_that_runs_show(grouped: bool) -> None:
    random = np.random.default_rng(4)
    shape = (4, 600)
    images = random.normal(0, 1, (4, 1)) + random.normal(0, 2, (1, 600)) + random.normal(0, 1, shape)
    shows = np.repeat(np.arange(30), np.r_[np.full(15, 10), np.full(15, 30)]) if grouped else None
    spread = Spread.of(Paired(images.mean(axis=1), images, shows))
    assert spread.units == (30 if grouped else 600)
    expected = Mean.crossed(images, shows).parts
    assert [float(error) for error, _ in spread.parts(4)] == pytest.approx([part.error for part in expected])
    assert [freedom for _, freedom in spread.parts(4)] == [part.freedom for part in expected]
    if not grouped:
        assert (spread.seeds, spread.images, spread.answers) == pytest.approx((1, 2, 1), rel=0.5)
    metric = Spread.of(Paired(np.array([1.0, 2.0, 3.0]), None, None))
    assert (metric.seeds, metric.units, float(metric.error(4))) == (1, 0, 0.5)
    with pytest.raises(ValueError, match="at least two seeds"):
        Spread.of(Paired(np.array([1.0]), None, None))


@pytest.mark.slow
@pytest.mark.parametrize("seeds", SEEDS)
def test_made_up_answers_are_judged_falsely_as_seldom(seeds: int) -> None:
    """Not normal, and through all of the package: answers, records, differences, verdicts."""
    random, trials, images, margin = np.random.default_rng(5), 400, 2_000, 0.01
    hard = random.beta(0.05, 1.2, images)  # a few images are wrong for most runs, most for none
    false_difference = false_equivalence = 0
    for _ in range(trials):
        for extra in (0.0, margin):
            sides = []
            for more in (extra, 0.0):
                shift = random.normal(0, 0.15, (seeds, 1))  # seeds differ
                chance = hard ** np.exp(-shift) + more
                wrong = random.random((seeds, images)) < chance.clip(0, 1)
                sides.append([run_on(wrong[seed], seed) for seed in range(seeds)])
            found = paired_difference(*sides, "test")
            assert found is not None
            word = verdict(found, "lower", found.p, margin)
            if extra:
                false_equivalence += word == "equivalent"
            else:
                false_difference += word in ("supported", "contradicted")
    most = trials * 0.05 + 3 * (trials * 0.05 * 0.95) ** 0.5
    assert false_difference <= most
    assert false_equivalence <= most


def test_the_page_has_a_row_for_each_number_of_seeds(
    seen: list[Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("capsnet.experiments.error_rates.DRAWS", 400)
    quick = [group for group in groups(read_records(RESULTS)) if group.experiment.name == "table1"]
    text = section(quick)
    rows = [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| ")]
    assert rows == ["| seeds", *(f"| {seeds}" for seeds in SEEDS), "| as planned"]
    assert section([]) == ""
