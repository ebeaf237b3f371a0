"""Training from Python."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import capsnet
from capsnet import CapsNet, CapsNetConfig, CapsnetError, Dataset
from capsnet._support.errors import InUse
from capsnet.inference.saved_confidence import Confidence
from capsnet.models import CNN, CNNConfig
from capsnet.models.cnn import Stage
from capsnet.training.loop import train
from capsnet.training.run import Run
from stripes import CONFIG, DATA, SMALL

OPTIONS = {"epochs": 5, "batch_size": 16, "learning_rate": 0.01, "device": "cpu"}


def test_train_learns_and_evaluate_says_the_same(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = CapsNet(replace(SMALL, class_names=DATA.class_names))
    evaluation = capsnet.train(model, DATA, out=tmp_path / "run", **OPTIONS)
    assert evaluation.error < 0.2
    assert not model.training
    assert capsnet.evaluate(model, DATA).errors == evaluation.errors
    kept = capsnet.load_model(tmp_path / "run")
    assert capsnet.evaluate(kept, DATA.test).errors == evaluation.errors
    assert kept.class_names == DATA.class_names
    assert json.loads((tmp_path / "run" / "result.json").read_text())["test_error"] == evaluation.error


def test_train_leaves_nothing_behind_unless_told_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    capsnet.train(CapsNet(SMALL), DATA, steps=2, batch_size=16, device="cpu")
    assert list(tmp_path.iterdir()) == []


def test_train_is_the_training_of_the_command_line(tmp_path: Path) -> None:
    from stripes import run_training

    run_training(tmp_path / "command")
    torch.manual_seed(CONFIG.seed)
    model = CapsNet(SMALL)
    capsnet.train(model, DATA, **OPTIONS)
    other = capsnet.load_model(tmp_path / "command")
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_a_control_is_trained_the_same_way() -> None:
    torch.manual_seed(0)
    config = CNNConfig.for_dataset(DATA, stages=(Stage(8, 5, pool="max"),), hidden=(16,))
    assert capsnet.train(CNN(config), DATA, **OPTIONS).error < 0.2


def test_a_model_for_other_images_is_refused_with_the_remedy() -> None:
    with pytest.raises(CapsnetError, match=r"CapsNetConfig.for_dataset\(dataset\)"):
        capsnet.train(CapsNet(CapsNetConfig(stem_channels=2, primary_types=1)), DATA)
    with pytest.raises(CapsnetError, match="no field 'epoch'; did you mean 'epochs'"):
        capsnet.train(CapsNet(SMALL), DATA, epoch=1)


def test_arrays_are_trained_on() -> None:
    assert isinstance(DATA.train, capsnet.data.Examples)
    dataset = Dataset.from_arrays(DATA.train.images, DATA.train.labels, class_names=DATA.class_names)
    torch.manual_seed(0)
    model = CapsNet(replace(SMALL, class_names=None))
    assert capsnet.train(model, dataset, **{**OPTIONS, "epochs": 10}).error < 0.3


def test_a_run_is_finished_only_with_its_confidence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, options = tmp_path / "run", {**OPTIONS, "hold_out": 0.1, "epochs": 1}
    with monkeypatch.context() as patch:
        patch.setattr(Confidence, "save", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            capsnet.train(CapsNet(SMALL), DATA, out=folder, **options)
    assert Run(folder).result() is None
    with Run.reopen(folder) as run:
        train(CapsNet(SMALL), DATA, run.training(), run, resume=True, confidence=True)
    assert Run(folder).result() is not None
    assert Confidence.load(folder, len(DATA.class_names)).temperature is not None


def test_clearing_a_run_waits_for_who_trains_there(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    capsnet.train(CapsNet(SMALL), DATA, out=folder, **{**OPTIONS, "epochs": 1})
    with Run.reopen(folder), pytest.raises(InUse):
        Run(folder).clear()
    assert Run(folder).result() is not None
    Run(folder).clear()
    assert [file.name for file in folder.iterdir()] in ([], [".lock"])
