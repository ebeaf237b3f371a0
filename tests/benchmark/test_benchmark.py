import csv
import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from capsnet import benchmark
from capsnet.benchmark import Case, NoParity, Result, describe, measure
from capsnet.benchmark.cases import (
    ON_AGREE,
    PAPER,
    build_agree,
    build_matrix_capsules,
    build_routing,
    build_routing_by_name,
    largest_difference,
)
from capsnet.benchmark.measure import interleaved
from capsnet.benchmark.plain_models import build_matrix_step
from capsnet.cli.bench_table import print_table, write_csv
from capsnet.cli.research import bench

CPU = torch.device("cpu")
TINY = replace(PAPER, batch=4, in_caps=20)
HUNDRED_MB = 25_000_000


def wrong(device: torch.device, plain: bool) -> object:
    return lambda: (torch.ones(3) * (1 if plain else 1.001),)


def not_a_number(device: torch.device, plain: bool) -> object:
    return lambda: (torch.ones(3) if plain else torch.full((3,), torch.nan),)


def hungry(device: torch.device, plain: bool) -> object:
    return lambda: ((torch.ones(HUNDRED_MB if plain else 10) * 2)[:5].clone(),)


@pytest.mark.parametrize("build", [wrong, not_a_number])
def test_no_speed_is_reported_when_the_numbers_differ(build: object) -> None:
    with pytest.raises(NoParity, match="no speed-up is reported"):
        measure(Case("a lie", build), CPU, 0.01)


@pytest.mark.quick
def test_both_paths_are_timed_in_turn_in_one_run() -> None:
    calls: list[str] = []
    times = interleaved({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, CPU, 0.0, least=5)
    assert calls == ["a", "b"] * 6  # one round to warm up
    assert [len(values) for values in times.values()] == [5, 5]


def test_routing_is_measured_against_the_reference() -> None:
    result = measure(Case("tiny", partial(build_routing, TINY, True)), CPU, 0.05)
    assert result.parity < 1e-5
    assert result.ratio == result.reference / result.fast
    low, high = result.fast_spread
    assert low <= result.fast <= high


@pytest.mark.parametrize("name", ["agree", *ON_AGREE])
def test_agree_and_its_routings_are_measured_against_the_reference(name: str) -> None:
    build = build_agree if name == "agree" else partial(build_routing_by_name, name)
    assert measure(Case(name, partial(build, TINY), tolerance=1e-4), CPU, 0.05).parity < 1e-4


def test_a_convolutional_layer_is_measured_against_the_reference() -> None:
    case = Case("em, convolutional", partial(build_matrix_capsules, 1), tolerance=1e-4, rounds=2)
    assert measure(case, CPU, 0.0).parity < 1e-4


def test_a_step_of_matrix_capsules_is_measured_against_the_reference() -> None:
    quick, plain = (build_matrix_step(1, CPU, path)() for path in (False, True))
    assert largest_difference(quick, plain) < 1e-4


def test_what_does_not_fit_in_memory_is_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = Case("small", partial(build_routing, TINY, False))
    monkeypatch.setattr(benchmark, "CASES", (small, replace(small, name="huge", needs=10**18)))
    bench("cpu", seconds=0.01, as_json=True)
    printed = capsys.readouterr()
    assert [row["case"] for row in json.loads(printed.out)] == ["small"]
    assert "left out: huge. Plain PyTorch needs 1000000000 GB of memory for it" in printed.err


def test_peak_memory_counts_what_is_freed_again() -> None:
    result = measure(Case("hungry", hungry, memory=True), CPU)
    assert 90e6 < result.reference < 300e6
    assert result.fast < 20e6


def test_results_say_where_they_come_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = Result("routing", "seconds", 2.0, 0.5, (1.9, 2.1), (0.4, 0.6), 9, 1e-7)
    rows = describe([result])
    write_csv(tmp_path / "speed.csv", rows)
    with (tmp_path / "speed.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert float(row["ratio"]) == 4
    assert row["torch"] == torch.__version__
    assert row["processor"]
    assert json.loads(json.dumps(rows))
    print_table([result], rows[0])
    assert "4.0×" in capsys.readouterr().out


def test_largest_difference_is_relative_to_the_reference() -> None:
    assert largest_difference((torch.tensor([101.0]),), (torch.tensor([100.0]),)) == pytest.approx(0.01)
    assert (
        sys.float_info.max
        > largest_difference((torch.ones(2), torch.zeros(2)), (torch.ones(2), torch.ones(2)))
        == 1
    )
