"""Tables and verdicts from made-up records."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from capsnet import CapsnetError
from capsnet.evaluation import Evaluation
from capsnet.experiments import Record
from capsnet.experiments.record import Answers, record_path
from capsnet.experiments.statistics import Difference, estimate, paired_difference, t_interval, verdict
from capsnet.results import groups, judgements, overview, write_results

N = 1000


def record(variant: str, seed: int, errors: int, scale: str = "full", control: bool = False) -> Record:
    labels = torch.ones(N, 1, dtype=torch.long)
    labels[:errors] = 0
    evaluation = Evaluation(torch.tensor([[0.0, 1.0]]).repeat(N, 1), labels)
    return Record(
        experiment="table1",
        variant=variant,
        scale=scale,
        seed=seed,
        settings="0",
        about=f"about {variant}",
        control=control,
        data="mnist",
        provenance="Made up.",
        architecture="capsnet",
        model={},
        training={"steps": 300_000, "schedule": "paper", "precision": "fp32"},
        parameters=8_215_568,
        multiply_adds=201_793_536,
        steps=300_000,
        seconds=60.0,
        device="cpu",
        tests={"test": Answers.of(evaluation)},
        metrics={},
        arrays={},
        code="abc",
        environment={
            "processor": "a processor",
            "threads": 2,
            "versions": {"torch": "9"},
            "capsnet": "0.1",
            "gpu": None,
        },
    )


def runs(variant: str, errors: list[int], scale: str = "full", control: bool = False) -> list[Record]:
    return [record(variant, seed, count, scale, control) for seed, count in enumerate(errors)]


@pytest.mark.quick
def test_intervals_over_seeds_are_students() -> None:
    assert t_interval([1.0, 2.0, 3.0]) == pytest.approx((2 - 2.48414, 2 + 2.48414), abs=1e-5)
    found = estimate(runs("r3-reconstruction", [10, 20, 30]), "test")
    assert (found.mean, found.spread, found.n) == pytest.approx((0.02, 0.01, 3))
    single = estimate(runs("r3-reconstruction", [10]), "test")
    assert single.low < 0.01 < single.high < 0.02
    assert estimate(runs("r3-reconstruction", [10]), "no such measure") is None


def test_differences_are_paired_by_seed() -> None:
    # Far apart between seeds, and close within each: only the pairing shows it.
    found = paired_difference(runs("a", [10, 200, 400]), runs("b", [20, 211, 409]), "test")
    assert found.over == "seeds"
    assert found.mean == pytest.approx(-0.010)
    assert found.high < 0
    assert verdict(found, "lower") == "supported"
    assert verdict(found, "higher") == "contradicted"
    two_common = paired_difference(runs("a", [10, 20, 30]), runs("b", [10, 30]), "test")
    assert two_common.n == 2


def test_one_seed_is_paired_by_image() -> None:
    # McNemar's table: 30 wrong only for b, none only for a.
    found = paired_difference(runs("a", [10]), runs("b", [40]), "test")
    assert (found.over, found.n) == ("images", N)
    assert found.mean == pytest.approx(-0.03)
    half = 1.959964 * ((0.03 - 0.03**2) / N) ** 0.5
    assert (found.low, found.high) == pytest.approx((-0.03 - half, -0.03 + half))


@pytest.mark.parametrize(
    ("low", "high", "better", "expected"),
    [
        (-2.0, -1.0, "lower", "supported"),
        (-2.0, -1.0, "higher", "contradicted"),
        (-1.0, 1.0, "lower", "undecided"),
        (1.0, 2.0, "higher", "supported"),
        (float("-inf"), float("inf"), "lower", "undecided"),
    ],
)
def test_a_verdict_needs_the_whole_interval(low: float, high: float, better: str, expected: str) -> None:
    assert verdict(Difference(0.0, low, high, 3, "seeds"), better) == expected


FULL = [
    *runs("r3-reconstruction", [20, 22, 24]),
    *runs("r1-reconstruction", [10, 12, 14]),
    *runs("cnn-max-pool", [30, 50, 70], control=True),
    *runs("cnn-baseline", [25, 25, 20], control=True),
]


def test_verdicts_are_printed_whichever_way_they_fall() -> None:
    (group,) = groups(FULL)
    lines = "\n".join(judgements(group))
    assert "Three routing iterations are better than one: **contradicted**" in lines
    assert "+1.00 (+1.00 to +1.00) points, paired over 3 seeds" in lines
    assert "better than the paper's baseline CNN: **undecided**" in lines


def test_quick_results_are_never_beside_the_papers(tmp_path: Path) -> None:
    quick = [replace(one, scale="quick") for one in FULL]
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
        one.write(record_path(tmp_path / "results", one.experiment, one.variant, one.scale, one.seed))
    short = replace(FULL[0], seed=7, training={"steps": 500, "schedule": "one-cycle", "precision": "bf16"})
    short.write(record_path(tmp_path / "results", short.experiment, short.variant, short.scale, short.seed))
    write_results(tmp_path / "results", tmp_path / "docs" / "results.md")
    page = (tmp_path / "docs" / "results.md").read_text()
    assert "### table1, full scale" in page
    assert (
        "| r1-reconstruction | about r1-reconstruction | 1.20 ± 0.20 (0.70 to 1.70) | 0.29 ± 0.011 | 3 |"
        in page
    )
    assert "8,215,568 | 201,793,536" in page
    assert "500 steps in place of 300,000, one-cycle learning rate" in page
    assert "trained with bfloat16 products" in page
    assert "- table1, full: a processor, 2 threads; torch 9, capsnet 0.1; code abc" in page
    assert (tmp_path / "docs" / "images" / "results-table1-full.png").stat().st_size > 1000


def test_a_folder_without_results_says_how_to_get_some(tmp_path: Path) -> None:
    with pytest.raises(CapsnetError, match="capsnet reproduce"):
        write_results(tmp_path / "nowhere", tmp_path / "results.md")
    with pytest.raises(CapsnetError, match="holds no results yet"):
        write_results(tmp_path, tmp_path / "results.md")
    with pytest.raises(CapsnetError, match="no experiment 'table9'"):
        groups([replace(FULL[0], experiment="table9")])
