"""Tables and verdicts from made-up records."""

import json
import re
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from capsnet import CapsnetError
from capsnet.cli import main
from capsnet.experiments import EXPERIMENTS, Record
from capsnet.experiments.means import cluster_interval, crossed_interval, t_interval
from capsnet.experiments.page import overview, write_results
from capsnet.experiments.recipe import Margin
from capsnet.experiments.record import Findings, PackedArray, record_path
from capsnet.experiments.record_groups import groups
from capsnet.experiments.statistics import Difference, estimate, paired_difference
from capsnet.experiments.verdicts import holm, judgements, verdict
from made_up import N, answers, made, record, runs


def on_toys(variant: str, wrong: list[int], sizes: list[int], copies: int = 1, known: bool = True) -> Record:
    """One run on so many views of each toy, so many of them answered wrongly; every view `copies` times."""
    which = np.repeat([k < count for count, n in zip(wrong, sizes, strict=True) for k in range(n)], copies)
    toys = np.repeat(np.arange(len(sizes)), sizes).repeat(copies) if known else None
    one = record(variant, 0, 0, "quick", control=variant.startswith("cnn"))
    one = made(replace(one, experiment="smallnorb", data="smallnorb", training={}))
    return replace(one, tests={"test": answers(which, toys)})


@pytest.mark.quick
def test_intervals_over_seeds_are_students() -> None:
    assert t_interval([1.0, 2.0, 3.0]) == pytest.approx((2 - 2.48414, 2 + 2.48414), abs=1e-5)
    measured = [replace(one, metrics={"R²": k}) for k, one in enumerate(runs("r3-reconstruction", [1, 1, 1]))]
    found = estimate(measured, "R²")
    assert (found.mean, found.spread, found.seeds, found.unit) == (1, 1, 3, None)
    assert (found.low, found.high) == pytest.approx((1 - 2.48414, 1 + 2.48414), abs=1e-5)
    single = estimate(runs("r3-reconstruction", [10]), "test")
    assert single.low < 0.01 < single.high < 0.02
    assert estimate(runs("r3-reconstruction", [10]), "no such measure") is None


@pytest.mark.quick
def test_intervals_of_errors_are_over_seeds_and_images_at_once() -> None:
    # By hand: of 3 runs on 4 images; t(2) = 4.30265, t(3) = 3.18245.
    wrong = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [1, 0, 0, 0]], bool)
    over_runs = 4.30265 * np.std([0.5, 0.5, 0.25], ddof=1) / 3**0.5
    over_images = 3.18245 * np.std([1, 2 / 3, 0, 0], ddof=1) / 4**0.5
    middle, half = 5 / 12, (over_runs**2 + over_images**2) ** 0.5
    assert crossed_interval(wrong) == pytest.approx((middle - half, middle + half), abs=1e-5)
    assert half > over_runs
    of_two = crossed_interval(wrong, np.array([5, 5, 9, 9]))  # the same by what they show: 5/6 and 0, t(1)
    over_groups = 12.7062 * np.std([5 / 6, 0], ddof=1) / 2**0.5
    assert of_two[1] - middle == pytest.approx((over_runs**2 + over_groups**2) ** 0.5, abs=1e-4)
    assert crossed_interval(wrong[:1]) == crossed_interval(wrong[:, :1]) == (-float("inf"), float("inf"))
    found = estimate(runs("r3-reconstruction", [10, 20, 30]), "test")
    assert (found.mean, found.spread, found.seeds, found.unit) == pytest.approx((0.02, 0.01, 3, "images"))
    assert found.low == 0, "no error is negative"


@pytest.mark.parametrize(
    ("between_runs", "between_images"), [(0.0, 1.0), (0.05, 0.7), (0.1, 0.0), (0.3, 1.0)]
)
def test_false_positive_rate_is_at_most_5_percent(between_runs: float, between_images: float) -> None:
    """Made-up differences of mean 0 between three runs on 60 images: at most 5 % may have p ≤ 0.05."""
    random = np.random.default_rng(0)
    called = 0
    for _ in range(400):
        values = random.normal(0, between_runs, (3, 1)) + random.normal(0, between_images, (1, 60))
        values = values + random.normal(0, 0.5, (3, 60))
        low, high = crossed_interval(values)
        called += low > 0 or high < 0
    assert called <= 0.05 * 400 + 2 * (400 * 0.05 * 0.95) ** 0.5


def test_differences_are_paired_by_seed_and_by_image() -> None:
    # Far apart between seeds, and close within each: only the pairing shows it.
    found = paired_difference(runs("a", [10, 200, 400]), runs("b", [30, 221, 421]), "test")
    assert (found.seeds, found.unit, found.units) == (3, "images", N)
    assert found.mean == pytest.approx(-0.062 / 3)
    over_runs = 4.30265 * np.std([20, 21, 21], ddof=1) / N / 3**0.5
    per_image = -np.bincount(np.r_[10:30, 200:221, 400:421], minlength=N) / 3
    over_images = 1.96234 * np.std(per_image, ddof=1) / N**0.5
    half = (over_runs**2 + over_images**2) ** 0.5
    assert (found.low, found.high) == pytest.approx((found.mean - half, found.mean + half), abs=1e-6)
    assert found.halves == pytest.approx((over_runs, over_images), abs=1e-6)
    assert verdict(found, "lower", found.p, 0.01) == "supported"
    assert verdict(found, "higher", found.p, 0.01) == "contradicted"
    two_common = paired_difference(runs("a", [10, 20, 30]), runs("b", [10, 30]), "test")
    assert two_common.seeds == 2


@pytest.mark.parametrize(
    "errors", [[30, 221, 421], [12, 203, 407], [50, 190, 420], [10, 200, 400], [10, 200, 401]]
)
def test_p_is_small_where_the_interval_is_on_one_side(errors: list[int]) -> None:
    found = paired_difference(runs("a", [10, 200, 400]), runs("b", errors), "test")
    assert 0 <= found.p <= 1
    assert (found.p < 0.05) == (found.low > 0 or found.high < 0)


def test_metrics_are_paired_by_seed_alone() -> None:
    ours, theirs = (
        [replace(one, metrics={"R²": value}) for one, value in zip(runs("a", [1, 1, 1]), values, strict=True)]
        for values in ([0.010, 0.200, 0.400], [0.020, 0.211, 0.409])
    )
    found = paired_difference(ours, theirs, "R²")
    assert (found.seeds, found.unit, found.units) == (3, None, 0)
    assert found.p == pytest.approx(0.003317, abs=1e-6)  # SciPy's ttest_rel


def test_one_seed_is_paired_by_image() -> None:
    # McNemar's table: 30 wrong only for b, none only for a.
    found = paired_difference(runs("a", [10]), runs("b", [40]), "test")
    assert (found.seeds, found.unit, found.units) == (1, "images", N)
    assert found.mean == pytest.approx(-0.03)
    half = 1.959964 * ((0.03 - 0.03**2) / N) ** 0.5
    assert (found.low, found.high) == pytest.approx((-0.03 - half, -0.03 + half))
    assert found.p == pytest.approx(2 * 0.5**30)
    same = paired_difference(runs("a", [10]), runs("b", [10]), "test")
    assert (same.mean, same.p) == (0, 1)


def test_a_metric_of_one_seed_is_paired_with_that_seed() -> None:
    ours, theirs = runs("a", [10, 10]), runs("b", [40, 90])
    ours[0] = replace(ours[0], tests={})
    found = paired_difference(ours, theirs, "test")
    assert (found.seeds, found.unit, found.mean) == (1, "images", pytest.approx(-0.08))


@pytest.mark.quick
def test_groups_of_one_size_count_as_one_value_each() -> None:
    values, groups = np.array([0, 1, 1, 1, 0, 0]), np.array([7, 7, 2, 2, 5, 5])
    assert cluster_interval(values, groups) == pytest.approx(t_interval([0.5, 1.0, 0.0]))
    # Of other sizes, by hand: mean 2/4, residuals 1 − 0.5 · 3 and 1 − 0.5, t(1) = 12.706.
    half = 12.7062 * (2 * 0.5) ** 0.5 / 4
    assert cluster_interval([1, 0, 0, 1], np.array([0, 0, 0, 1])) == pytest.approx(
        (0.5 - half, 0.5 + half), abs=1e-4
    )
    assert cluster_interval([1, 0], np.array([3, 3])) == (-float("inf"), float("inf"))


def test_repeated_views_do_not_narrow_the_interval() -> None:
    """Five toys: what is known of other toys does not grow with the photographs of these."""
    ours, theirs, sizes = [1, 0, 3, 0, 2], [4, 1, 3, 0, 4], [4, 4, 4, 4, 4]
    few, many = (
        paired_difference([on_toys("r3", ours, sizes, n)], [on_toys("r1", theirs, sizes, n)], "test")
        for n in (1, 100)
    )
    assert (many.unit, many.units) == ("groups", 5)
    assert (few.mean, few.low, few.high) == pytest.approx((many.mean, many.low, many.high))
    assert many.mean == pytest.approx(-6 / 20)
    assert many.low < 0 < many.high
    as_images = paired_difference(
        [on_toys("r3", ours, sizes, 100, known=False)],
        [on_toys("r1", theirs, sizes, 100, known=False)],
        "test",
    )
    assert (as_images.unit, as_images.units) == ("images", 2000)
    assert as_images.high < 0, "the error that groups are there to prevent"
    single = estimate([on_toys("r3", ours, sizes, 100)], "test")
    assert (single.unit, single.low) == ("groups", 0)
    assert single.high == pytest.approx(
        0.3 + 2.7764 * np.std([0.25, 0, 0.75, 0, 0.5], ddof=1) / 5**0.5, abs=1e-4
    )
    assert estimate([on_toys("r3", ours, sizes, 100, known=False)], "test").unit == "images"


def test_different_groups_are_not_paired() -> None:
    one, other = on_toys("r3", [1, 2], [4, 4]), on_toys("r1", [1, 2], [2, 6])
    assert paired_difference([one], [other], "test") is None
    without = on_toys("r1", [1, 2], [4, 4], known=False)
    assert paired_difference([one], [without], "test").unit == "groups"  # of the same test set


@pytest.mark.quick
def test_groups_are_kept_with_the_answers_and_may_be_missing(tmp_path: Path) -> None:
    wrong, groups = np.array([True, False, True]), np.array([300, 0, 300])
    one = replace(record("r3", 0, 0), tests={"new": answers(wrong, groups), "old": answers(wrong)})
    one.write(tmp_path / "new.json")
    assert Record.read(tmp_path / "new.json") == one
    assert one.tests["new"].group_numbers().tolist() == [300, 0, 300]
    old = json.loads((tmp_path / "new.json").read_text())
    for test in old["tests"].values():  # as records were before there were groups
        test.pop("groups")
    (tmp_path / "old.json").write_text(json.dumps(old))
    assert Record.read(tmp_path / "old.json").tests["new"].group_numbers() is None
    for senseless in (groups[:2], groups - 1, groups / 2):
        with pytest.raises(ValueError, match="non-negative integers"):
            answers(wrong, senseless)
    with pytest.raises(ValueError, match="no such test set"):
        Findings(groups={"test": groups})
    assert asdict(one)["tests"]["new"]["groups"]["dtype"] == "uint16"


@pytest.mark.parametrize("known", [True, False])
def test_the_page_says_what_intervals_are_over(tmp_path: Path, known: bool) -> None:
    ours, theirs, sizes = [1, 0, 3, 0, 2], [4, 1, 3, 0, 4], [4, 4, 4, 4, 4]
    for one in (on_toys("r3", ours, sizes, 50, known), on_toys("cnn-max-pool", theirs, sizes, 50, known)):
        one.write(record_path(tmp_path, one.experiment, one.variant, one.scale, one.seed))
    write_results(tmp_path, tmp_path / "results.md")
    page = (tmp_path / "results.md").read_text()
    if known:
        assert "own size: **undecided**" in page
        assert "paired over 5 toys, one seed" in page
        assert "**Intervals.** Over 5 toys in 1,000 images (test)." in page
        assert "for a single run, over the toys in the test images" in page
    else:
        assert "own size: **supported, in this one run**" in page
        assert "paired over 1,000 test images, one seed" in page
        assert "Over 1,000 images (test) as if they were independent. They are too narrow" in page
        assert "for a single run, over test images" in page


def difference(mean: float, low_90: float, high_90: float, seeds: int = 3) -> Difference:
    return Difference(mean, mean - 9, mean + 9, low_90, high_90, seeds, "images", 9, 0.0)


@pytest.mark.quick
@pytest.mark.parametrize(
    ("mean", "better", "p", "expected"),
    [
        (-2.0, "lower", 0.05, "supported"),
        (-2.0, "higher", 0.01, "contradicted"),
        (-1.0, "lower", 0.051, "undecided"),
        (1.0, "lower", 0.0, "contradicted"),
        (1.0, "higher", 0.0, "supported"),
        (0.0, "lower", 0.0, "undecided"),
        (1.0, "higher", float("nan"), "undecided"),
    ],
)
def test_a_verdict_needs_a_small_p(mean: float, better: str, p: float, expected: str) -> None:
    one_run = expected if expected == "undecided" else f"{expected}, in this one run"
    for seeds, word in ((3, expected), (2, expected), (1, one_run)):
        assert verdict(difference(mean, mean - 1, mean + 1, seeds), better, p, 0.5) == word


@pytest.mark.quick
@pytest.mark.parametrize(
    ("low", "high", "p", "expected"),
    [
        (-0.4, 0.4, 0.6, "equivalent"),
        (-0.4, 0.5, 0.6, "undecided"),  # the margin itself would matter
        (-0.6, 0.4, 0.6, "undecided"),
        (0.1, 0.4, 0.05, "contradicted"),  # beyond chance, however small
        (0.1, 0.4, 0.051, "equivalent"),  # not after correction
        (-float("inf"), float("inf"), 1.0, "undecided"),
    ],
)
def test_what_is_not_beyond_chance_may_be_equivalent(
    low: float, high: float, p: float, expected: str
) -> None:
    assert verdict(difference(0.2, low, high), "lower", p, 0.5) == expected
    one_run = expected if expected == "undecided" else f"{expected}, in this one run"
    assert verdict(difference(0.2, low, high, 1), "lower", p, 0.5) == one_run


@pytest.mark.quick
def test_the_line_says_when_a_difference_is_smaller_than_what_matters() -> None:
    ours, theirs = runs("r3-reconstruction", [20, 22, 24]), runs("r1-reconstruction", [21, 23, 25])
    for one in (*ours, *theirs):  # 100 times as many images: a difference of 0.001 points, the margin 0.1
        one.tests["test"] = answers(np.arange(100 * N) < one.tests["test"].errors * 5)
    (found,) = judgements(groups([*ours, *theirs])[0])
    assert (found.word, found.is_small) == ("supported", True)
    assert "one: **supported, but smaller than what matters**. r3-reconstruction" in found.line
    assert found.line.endswith("; 90 % interval -0.01 to -0.00, within ±0.10 points.")
    large = replace(found, claim=replace(found.claim, margin=Margin(1e-9, "nothing is so small")))
    assert "one: **supported**. r3-rec" in large.line
    assert "90 %" not in large.line
    theirs[0] = replace(theirs[0], tests=ours[2].tests)  # now seeds differ more than models
    (alike,) = judgements(groups([*ours, *theirs])[0])
    assert (alike.word, alike.is_small) == ("equivalent", False)
    assert "one: **equivalent**. r3-reconstruction" in alike.line
    assert alike.line.endswith(", within ±0.10 points.")


@pytest.mark.quick
@pytest.mark.parametrize("seeds", [1, 3])
def test_few_images_on_which_nothing_differs_do_not_show_equality(seeds: int) -> None:
    for images, word in ((30, "undecided"), (3000, "equivalent")):
        ours, theirs = (
            [replace(one, tests={"test": answers(np.zeros(images, bool))}) for one in runs(name, [0] * seeds)]
            for name in ("a", "b")
        )
        found = paired_difference(ours, theirs, "test")
        assert (found.mean, found.low, found.high) == (0, 0, 0)
        assert verdict(found, "lower", found.p, 0.01).startswith(word)


@pytest.mark.quick
def test_holms_correction_on_a_hand_worked_case() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.6]) == [1.0, 1.0]
    assert holm([0.03]) == [0.03]
    assert holm([]) == []


def test_claims_are_corrected_for_their_number() -> None:
    """By itself p = 0.03 would do; beside two other claims it does not, and its interval still tells what it told."""
    three = [
        *runs("r3-reconstruction", [20, 22, 24]),
        *runs("r1-reconstruction", [28, 34, 31]),
        *runs("cnn-max-pool", [21, 22, 23], control=True),
        *runs("cnn-baseline", [19, 20, 27], control=True),
    ]
    alone = judgements(groups(three[:6])[0])
    (first, *others) = judgements(groups(three)[0])
    assert [judgement.claim for judgement in alone] == [first.claim]
    assert (alone[0].word, first.word) == ("supported", "undecided")
    assert first.difference == alone[0].difference
    assert first.difference.high < 0
    assert first.corrected == pytest.approx(3 * first.p)
    assert alone[0].corrected == alone[0].p == first.p
    assert (first.claim.ours, first.claim.against, first.measure.key) == (
        "r3-reconstruction",
        "r1-reconstruction",
        "test",
    )
    assert (
        f"; p = {first.p:.2g}, after Holm's correction {first.corrected:.2g}; the seeds alone" in first.line
    )
    assert alone[0].line.endswith(f"paired over 3 seeds and 1,000 test images; p = {first.p:.2g}.")
    assert all(judgement.word == "undecided" for judgement in others)


FULL = [
    *runs("r3-reconstruction", [20, 22, 24]),
    *runs("r1-reconstruction", [10, 12, 14]),
    *runs("cnn-max-pool", [30, 50, 70], control=True),
    *runs("cnn-baseline", [25, 25, 20], control=True),
]


def test_verdicts_are_printed_whichever_way_they_fall() -> None:
    (group,) = groups(FULL)
    found = judgements(group)
    lines = "\n".join(judgement.line for judgement in found)
    halves = re.compile(r"; the seeds alone leave ±\d\.\d\d, the test images alone ±\d\.\d\d\.$")
    assert {judgement.word for judgement in found if halves.search(judgement.line)} == {"undecided"}
    assert "Three routing iterations are better than one: **contradicted**" in lines
    assert "+1.00 (+0.44 to +1.56) points, paired over 3 seeds and 1,000 test images" in lines
    assert "better than the paper's kind of baseline CNN: **undecided**" in lines


def test_quick_results_are_never_shown_beside_published_ones(tmp_path: Path) -> None:
    quick = [made(replace(one, scale="quick", training={})) for one in FULL]
    found = groups([*FULL, *quick, replace(FULL[0], scale="smoke")])
    assert [group.scale for group in found] == ["full", "quick"]
    full_table, quick_table = overview(found, "full"), overview(found, "quick")
    assert "| paper |" in full_table
    assert "0.25 ± 0.005" in full_table
    assert "paper" not in quick_table.splitlines()[0]
    assert "0.25" not in quick_table
    assert "32 of 256 stem channels" in quick_table
    # The hardest control, not the weakest.
    assert "2.33 ± 0.29 (cnn-baseline)" in full_table


@pytest.mark.quick
def test_the_page_says_scale_seeds_size_and_machine(tmp_path: Path) -> None:
    for one in FULL:
        timed = replace(one, seconds=60.0 + 30 * one.seed)
        timed.write(record_path(tmp_path / "results", one.experiment, one.variant, one.scale, one.seed))
    short = made(replace(FULL[0], seed=7, training={"steps": 500, "precision": "bf16"}))
    short.write(record_path(tmp_path / "results", short.experiment, short.variant, short.scale, short.seed))
    assert write_results(tmp_path / "results", tmp_path / "docs" / "results.md") == []
    page = (tmp_path / "docs" / "results.md").read_text()
    assert "### table1, full scale" in page
    assert (
        "| r1-reconstruction | about r1-reconstruction | 1.20 ± 0.20 (0.38 to 2.09) | 0.29 ± 0.011 | 3 |"
        in page
    )
    assert "8,215,568 | 201,793,536" in page
    assert "| steps | seconds, fastest run |" in page
    assert "| 300,000 | 60 |" in page, "the others took longer because the machine did something else"
    assert "Not run yet: multimnist, multimnist-long, affine" in page
    assert "**Not run.** These variants of the recipe have no records: r3-no-reconstruction, r1-no-" in page
    own, short_page = page.split("### table1, full scale, 500 steps, bf16\n")
    assert "500 steps instead of 300,000, one-cycle learning rate" in short_page
    assert "trained with bfloat16 products" in short_page
    assert "instead of 300,000" not in own[own.index("### table1") :]
    assert "| 2.20 ± 0.20 (1.18 to 3.31) | 0.25 ± 0.005 | 3 |" in own, "of three runs, not four"
    assert "- table1, full: a processor, 2 threads; torch 9, capsnet 0.1; code abc" in page
    assert (tmp_path / "docs" / "images" / "results-table1-full.png").stat().st_size > 1000


def test_records_of_another_recipe_are_left_out_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The recipe's text is not about them, and their numbers are not means with the recipe's."""
    before = replace(record("r3-reconstruction", 3, 900), settings="0123456789ab")
    gone = record("r9", 0, 900)
    records = [*FULL, before, gone]
    (group,) = groups(records)
    assert [one.seed for one in group.of("r3-reconstruction")] == [0, 1, 2]
    assert group.stale == [before, gone]
    for one in records:
        one.write(record_path(tmp_path, one.experiment, one.variant, one.scale, one.seed))
    (said,) = write_results(tmp_path, tmp_path / "results.md")
    assert said == (
        "table1: 2 records made with other settings than the recipe's: table1/r3-reconstruction-full-s3.json, "
        "table1/r9-full-s0.json. Remove them and run `capsnet reproduce table1 --scale full` again."
    )
    page = (tmp_path / "results.md").read_text()
    monkeypatch.setattr(
        "sys.argv", ["capsnet", "report", "--results", str(tmp_path), "--target", str(tmp_path / "again.md")]
    )
    with suppress(SystemExit):
        main()
    assert f"not shown {said}" in " ".join(capfd.readouterr().out.split())
    assert f"**Not shown.** {said.removeprefix('table1: ')}" in page
    assert "90.00" not in page
    assert "r9 |" not in page


def test_stale_records_give_no_table(tmp_path: Path) -> None:
    one = replace(record("r3-reconstruction", 0, 900), settings="0123456789ab")
    one.write(record_path(tmp_path, one.experiment, one.variant, one.scale, one.seed))
    write_results(tmp_path, tmp_path / "results.md")
    page = (tmp_path / "results.md").read_text()
    assert "**Not shown.** 1 record made with other settings than the recipe's: table1/r3-rec" in page
    assert "Remove it and run" in page
    assert "Overview" not in page
    assert "| variant |" not in page
    assert "a processor" not in page


def test_an_ensemble_counts_its_records() -> None:
    scores = PackedArray.of(np.array([[0.9, 0.1], [0.4, 0.6]], np.float16))
    labels = PackedArray.of(np.array([0, 0], np.uint8))
    runs = [
        replace(record("leaky-r3", seed, 0), arrays={"scores": scores, "labels": labels}) for seed in (0, 1)
    ]
    notes = EXPERIMENTS["cifar10"].notes
    assert "each variant has one seed" in notes(runs[:1])[0]
    assert "| leaky-r3 | 2 | 50.00 % |" in notes(runs)[1]
    assert "ensemble" not in " ".join(EXPERIMENTS["cifar10"].deviations["quick"])


def test_runs_with_other_options_are_not_compared() -> None:
    shorter = [made(replace(one, training={"steps": 500})) for one in FULL if one.variant == "cnn-max-pool"]
    own, short = groups([*(one for one in FULL if one.variant == "r3-reconstruction"), *shorter])
    assert (own.label, short.label) == ("", "500 steps")
    assert not judgements(own)
    assert not judgements(short)
    (alone,) = groups(shorter)
    assert alone.label == ""


def test_deviations_name_the_variants_with_bfloat16_products_unless_all_have_them() -> None:
    short = [made(replace(one, training={"steps": 500, "precision": "bf16"})) for one in FULL]
    (group,) = groups(short)
    assert "trained with bfloat16 products" in group.deviations()
    some = [
        one if one.variant == "cnn-max-pool" else replace(one, training={**one.training, "precision": "fp32"})
        for one in short
    ]
    assert "cnn-max-pool: trained with bfloat16 products" in replace(group, records=some).deviations()


def test_experiments_without_records_are_listed() -> None:
    (group,) = groups(FULL)
    assert group.not_run() == [
        "r3-no-reconstruction",
        "r1-no-reconstruction",
        "official-r3",
        "official-r1",
        "cnn-same-stem",
        "cnn-average-pool",
    ]


def test_a_folder_without_results_says_how_to_get_some(tmp_path: Path) -> None:
    with pytest.raises(CapsnetError, match="capsnet reproduce"):
        write_results(tmp_path / "nowhere", tmp_path / "results.md")
    with pytest.raises(CapsnetError, match="has no results yet"):
        write_results(tmp_path, tmp_path / "results.md")
    with pytest.raises(CapsnetError, match="no experiment 'table9'"):
        groups([replace(FULL[0], experiment="table9")])


def test_the_page_says_how_learning_rates_and_margins_were_fixed(tmp_path: Path) -> None:
    def page(rate_errors: dict[str, float | None]) -> str:
        for one in (*runs("r3-reconstruction", [10, 12]), *runs("r1-reconstruction", [20, 21])):
            path = record_path(tmp_path / "results", "table1", one.variant, one.scale, one.seed)
            replace(one, rate_errors=rate_errors).write(path)
        write_results(tmp_path / "results", tmp_path / "results.md")
        return (tmp_path / "results.md").read_text()

    fixed = f"Fixed in commit {EXPERIMENTS['table1'].margins_commit}, before these runs were measured."
    chosen = page({"0.001": 0.01, "0.003": None})
    assert "Chosen for each variant on training images only, of 0.001, 0.003: " in chosen
    assert fixed in chosen
    before = page({})
    assert "**Learning rates.** Fixed in the recipe: " in before
    assert fixed not in before
