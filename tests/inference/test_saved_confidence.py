"""Calibrated probability and typicality, from training to prediction and report."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import capsnet as package
from capsnet import CapsNet, CapsnetError
from capsnet.data import Dataset, Examples
from capsnet.data.augmentation import RandomPlacement
from capsnet.data.fixed_random import freeze
from capsnet.inference.saved_confidence import Confidence
from capsnet.report import write_report
from capsnet.training.config import TrainConfig
from capsnet.training.holding_out import hold_out
from command import Command
from stripes import CONFIG, DATA, SMALL

OPTIONS = {"epochs": 6, "batch_size": 16, "learning_rate": 0.01, "device": "cpu"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that held out a fifth of its training images."""
    folder = tmp_path_factory.mktemp("held") / "run"
    package.train(
        CapsNet(replace(SMALL, class_names=DATA.class_names)), DATA, out=folder, hold_out=0.2, **OPTIONS
    )
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 test images, and a white one, unlike all of them."""
    folder = tmp_path_factory.mktemp("pictures")
    assert isinstance(DATA.test, Examples)
    for number in range(20):
        Image.fromarray(DATA.test.images[number, 0].numpy()).save(folder / f"stripe{number:02}.png")
    Image.new("L", (18, 18), 255).save(folder / "white.png")
    return folder


def test_the_held_out_images_are_not_trained_on() -> None:
    parts = hold_out(DATA, replace(CONFIG, hold_out=0.25))
    assert isinstance(parts.train, Examples)
    assert isinstance(parts.validation, Examples)
    assert isinstance(DATA.train, Examples)
    both = [*map(bytes, parts.train.images.numpy()), *map(bytes, parts.validation.images.numpy())]
    assert sorted(both) == sorted(map(bytes, DATA.train.images.numpy()))
    assert len(parts.validation) == pytest.approx(24, abs=2)
    assert hold_out(parts, replace(CONFIG, hold_out=0.25)) is parts
    assert hold_out(DATA, CONFIG) is DATA


def test_predict_says_how_sure_and_how_typical(run: Path, pictures: Path, capsnet: Command) -> None:
    outcome = capsnet("predict", run, pictures, "--json", "--device", "cpu")
    found = {Path(line["name"]).stem: line for line in map(json.loads, outcome.out.splitlines())}
    assert all(0 <= line["probability"] <= 1 and 0 < line["typicality"] <= 100 for line in found.values())
    white = found.pop("white")
    assert white["typicality"] < 5 < np.median([line["typicality"] for line in found.values()])
    text = capsnet("predict", run, pictures / "white.png", "--device", "cpu").out
    assert f"probability {white['probability']:.3f}" in text
    assert "typicality" in text


def test_uncertain_images_are_refused(run: Path, pictures: Path, tmp_path: Path, capsnet: Command) -> None:
    lines = capsnet("predict", run, pictures, "--json", "--device", "cpu").out.splitlines()
    probabilities = sorted(json.loads(line)["probability"] for line in lines)
    limit = (probabilities[2] + probabilities[3]) / 2
    target = tmp_path / "found.jsonl"
    asked = ("predict", run, pictures, "--refuse-below", limit, "--device", "cpu")
    assert capsnet(*asked, "--out", target).code == 0
    refused = [one for one in map(json.loads, target.read_text().splitlines()) if one["label"] is None]
    assert len(refused) == 3
    assert all(one["probability"] < limit and "is below" in one["refused"] for one in refused)
    assert capsnet(*asked).out.count(" refused ") == 3
    without = capsnet("predict", "capsnet-mnist", pictures, "--refuse-below", "0.5", "--device", "cpu")
    assert without.code == 2
    assert "train it with --hold-out 0.1" in without.err


def test_the_report_shows_reliability_and_what_refusing_gains(run: Path) -> None:
    page = write_report(run, DATA, package.load_model(run)).read_text()
    for text in ("Expected calibration error", "with the fitted temperature", "least certain images refused"):
        assert text in page
    assert (run / "report" / "reliability.png").stat().st_size > 5000
    assert (run / "report" / "risk-coverage.png").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": -1},
        {"temperature": "hot"},
        {"reference": [[1.0]]},
        {"reference": [[2.0, 1.0]] * 3},
        {"reference": [[]] * 3},
        {"more": 1},
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    content = {"temperature": 0.5, "calibration_images": 3, "reference": [[1.0, 2.0]] * 3}
    (tmp_path / "confidence.json").write_text(json.dumps(content))
    assert Confidence.load(tmp_path, classes=3) == Confidence(**content)
    (tmp_path / "confidence.json").write_text(json.dumps(content | change))
    with pytest.raises(CapsnetError, match=r"confidence\.json is damaged, or of another model"):
        Confidence.load(tmp_path, classes=3)


def test_held_out_digits_have_random_places_where_test_digits_have_them() -> None:
    digits = Examples(torch.ones(40, 1, 8, 8, dtype=torch.uint8), torch.arange(40) % 2)
    placed = replace(digits, augment=RandomPlacement(12))
    data = Dataset("mnist40", placed, freeze(placed, 1), ("a", "b"), (1, 12, 12), "Made up.")
    held = hold_out(data, TrainConfig(hold_out=0.5)).validation
    assert held is not None
    images = held.batch(torch.arange(20)).images
    assert images.shape[1:] == (1, 12, 12)
    assert len({tuple(image.flatten().tolist()) for image in images}) > 5
    assert torch.equal(held.batch(torch.arange(20)).images, images)
