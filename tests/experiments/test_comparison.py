"""`capsnet compare`: the same treatment for all, and one honest sentence about the outcome."""

from pathlib import Path
from typing import Any

import pytest
import torch

from capsnet._support.errors import CapsnetError
from capsnet.data import Dataset, Examples, load, short_name
from capsnet.experiments import Options
from capsnet.experiments import comparison as comparing
from capsnet.experiments.comparison import CONTROLS, answer, compare, comparison
from capsnet.experiments.recipe import Claim, Margin, Measure
from capsnet.experiments.statistics import Difference
from capsnet.experiments.verdicts import Judgement, Verdict
from capsnet.models import CapsNetConfig, CNNConfig


def judged(*words: Verdict, seeds: int = 3) -> list[Judgement]:
    difference = Difference(0.0, -1.0, 1.0, -1.0, 1.0, seeds, "images", 1000, 1.0)
    measure, margin = Measure("test", "test error"), Margin(0.01, "…")
    return [
        Judgement(Claim("…", "test", "r3", control, margin), measure, difference, 1.0, 1.0, word, 3, None)
        for control, word in zip(CONTROLS, words, strict=True)
    ]


@pytest.mark.quick
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("supported",) * 3, "Yes: CapsNet makes fewer errors than each of its controls, beyond chance"),
        (
            ("supported", "contradicted", "undecided"),
            "No: cnn-max-pool makes fewer errors than CapsNet, beyond chance",
        ),
        (
            ("contradicted", "supported", "contradicted"),
            "No: cnn-same-stem and cnn-average-pool make fewer errors than CapsNet, beyond chance",
        ),
        (
            ("undecided", "supported", "undecided"),
            "In part: fewer errors than cnn-max-pool, undecided against cnn-same-stem and cnn-average-pool",
        ),
        (
            ("undecided",) * 3,
            "Undecided: no difference from cnn-same-stem, cnn-max-pool and cnn-average-pool is beyond chance",
        ),
        (
            ("equivalent",) * 3,
            "No difference that matters: CapsNet's error is within 1 point of each control's, over seeds",
        ),
        (
            ("equivalent", "supported", "equivalent"),
            "In part: fewer errors than cnn-max-pool, within 1 point of cnn-same-stem and cnn-average-pool.",
        ),
        (
            ("undecided", "equivalent", "undecided"),
            "In part: within 1 point of cnn-max-pool, undecided against cnn-same-stem and cnn-average-pool; more",
        ),
        (("equivalent", "contradicted", "supported"), "No: cnn-max-pool makes fewer errors"),
    ],
)
def test_the_answer_follows_from_the_verdicts(words: tuple[Verdict, ...], expected: str) -> None:
    assert answer(judged(*words)).startswith(expected)


@pytest.mark.quick
def test_the_answer_of_one_seed_says_so() -> None:
    assert "other seeds may differ" in answer(judged(*["supported, in this one run"] * 3, seeds=1))
    assert "more seeds or test images" in answer(judged(*["undecided"] * 3))
    assert answer(judged(*["supported"] * 3)[:2]).startswith("No answer"), "one control was not trained"


@pytest.mark.quick
def test_all_models_are_trained_alike() -> None:
    variants = comparison(load("mnist5k"), None, learning_rate=0.002).variants("quick")
    assert [variant.control for variant in variants] == [False, True, True, True]
    assert len({variant.training for variant in variants}) == 1
    assert variants[0].training.learning_rate == 0.002
    ours, *controls = (variant.model for variant in variants)
    assert isinstance(ours, CapsNetConfig)
    assert {control.output for control in controls if isinstance(control, CNNConfig)} == {"softmax"}


@pytest.mark.quick
def test_the_chosen_learning_rates_are_used() -> None:
    rates = dict(zip(("r3", *CONTROLS), (0.003, 0.0003, 0.001, 0.003), strict=True))
    experiment = comparison(load("mnist5k"), None, rates)
    for variant in experiment.variants("quick"):
        assert variant.training.learning_rate == rates[variant.name]
        assert f"learning rate {rates[variant.name]:g}, chosen for it" in variant.about
    assert "0.0003, 0.001, 0.003" in experiment.protocol


def test_no_resume_deletes_only_its_own_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = (
        tmp_path / "reproduce" / "run" / "x",
        tmp_path / "compare-mnist5k" / "runs" / "full" / "run" / "x",
    )
    gone = tmp_path / "compare-mnist5k" / "runs" / "smoke" / "run" / "x"
    for file in (*kept, gone):
        file.parent.mkdir(parents=True)
        file.touch()
    asked: list[Options] = []
    monkeypatch.setattr(comparing, "run_experiment", lambda _, options, __: asked.append(options) or [])
    options = Options(scale="smoke", out=tmp_path, work=tmp_path / "reproduce", resume=False)
    compare(load("mnist5k"), options, learning_rate=0.001)
    assert all(file.exists() for file in kept)
    assert not gone.exists()
    assert (asked[0].resume, asked[0].work) == (False, tmp_path / "compare-mnist5k" / "runs" / "smoke")


def test_choosing_a_rate_needs_two_training_images_per_class(tmp_path: Path) -> None:
    pixels = torch.zeros(4, 1, 20, 20, dtype=torch.uint8)
    few, test = Examples(pixels[:2], torch.tensor([0, 1])), Examples(pixels, torch.tensor([0, 1, 0, 1]))
    dataset = Dataset("few", few, test, ("a", "b"), (1, 20, 20), "Made up.")
    with pytest.raises(CapsnetError, match="--learning-rate"):
        compare(dataset, Options(scale="smoke", out=tmp_path, work=tmp_path / "runs"))


@pytest.mark.quick
def test_controls_for_overlapping_digits_use_sigmoids() -> None:
    controls: Any = [v.model for v in comparison(load("multimnist5k"), None).variants("quick") if v.control]
    assert {control.output for control in controls} == {"sigmoid"}


@pytest.mark.quick
@pytest.mark.parametrize(
    ("data", "name"),
    [
        ("mnist5k", "mnist5k"),
        ("folder:/home/me/My pictures", "My-pictures"),
        ("folder:../..", "images"),
        ("folder:/", "images"),
        ("folder:/data/.hidden\n", "hidden"),
    ],
)
def test_folders_about_a_data_set_have_plain_names(data: str, name: str) -> None:
    assert short_name(data) == name
    assert Path(name).name == name
