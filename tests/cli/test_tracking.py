"""`capsnet train --log`: what a tracker gets."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from capsnet.cli import tracking
from capsnet.data.npz import write_npz
from command import Command

STEPS = 12


@pytest.fixture
def training(tmp_path: Path) -> tuple[object, ...]:
    images = np.random.default_rng(0).integers(0, 256, (40, 20, 20), dtype=np.uint8)
    write_npz(tmp_path / "mine.npz", {"train_images": images, "train_labels": np.arange(40) % 2})
    small = ("--set", "model.stem_channels=4", "--set", "model.primary_types=2", "--set", "model.decoder=8")
    out = ("--out", tmp_path / "my-run", "--no-report", "--device", "cpu")
    return (
        "train",
        "--data",
        f"npz:{tmp_path / 'mine.npz'}",
        *small,
        "--steps",
        STEPS,
        "--lr",
        "0.002",
        *out,
    )


def test_tensorboard_gets_losses_errors_pictures_and_the_configuration(
    training: tuple[object, ...], tmp_path: Path, capsnet: Command
) -> None:
    pytest.importorskip("tensorboard", reason="pip install 'capsnet[log]'")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    outcome = capsnet(*training, "--log", "tensorboard")
    assert outcome.code == 0, outcome.err
    assert (tmp_path / "my-run" / "metrics.jsonl").exists()
    log = EventAccumulator(str(tmp_path / "my-run" / "log" / "capsnet")).Reload()
    names = ("train/loss", "train/margin", "train/reconstruction", "train/images_per_second", "test/error")
    assert set(names) <= set(log.Tags()["scalars"])
    assert [event.step for event in log.Scalars("train/loss")] == [10, 12]
    assert log.Tags()["images"] == ["reconstructions"]
    (configuration,) = (tmp_path / "my-run" / "log" / "capsnet").glob("*/hparams.yml")
    assert "learning_rate: 0.002" in configuration.read_text()


def test_mlflow_gets_them_in_its_local_files(
    training: tuple[object, ...], tmp_path: Path, capsnet: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow", reason="pip install mlflow-skinny")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    outcome = capsnet(*training, "--log", "mlflow")
    assert outcome.code == 0, outcome.err
    client = mlflow.MlflowClient()
    (experiment,) = client.search_experiments(filter_string="name = 'capsnet'")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == "my-run"
    assert run.info.status == "FINISHED"
    assert run.data.params["learning_rate"] == "0.002"
    assert {"train/loss", "train/images_per_second", "test/error"} <= run.data.metrics.keys()
    pictures = [one.path for one in client.list_artifacts(run.info.run_id)]
    assert f"reconstructions-{STEPS}.png" in pictures
    assert not list((tmp_path / "my-run").glob("*.png"))


def test_trackio_gets_them_in_its_local_files(
    training: tuple[object, ...], tmp_path: Path, capsnet: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio", reason="pip install trackio")
    outcome = capsnet(*training, "--log", "trackio")
    assert outcome.code == 0, outcome.err
    with closing(sqlite3.connect(tmp_path / "trackio" / "capsnet.db")) as data:
        kept = str([*data.execute("SELECT * FROM metrics"), *data.execute("SELECT * FROM configs")])
    sent = ("my-run", "train/loss", "train/images_per_second", "test/error", "reconstructions")
    assert all(name in kept for name in (*sent, '"learning_rate":0.002'))
    assert list((tmp_path / "trackio").rglob("*.png"))


def test_wandb_gets_them_offline(
    training: tuple[object, ...], tmp_path: Path, capsnet: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb", reason="pip install wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    outcome = capsnet(*training, "--log", "wandb")
    assert outcome.code == 0, outcome.err
    (file,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    content = file.read_bytes()
    assert all(name in content for name in (b"my-run", b"train/loss", b"test/error", b"learning_rate"))
    assert list(tmp_path.glob("wandb/offline-run-*/files/media/images/reconstructions_*.png"))


def test_an_unknown_or_missing_tracker_is_refused_before_training(
    training: tuple[object, ...], tmp_path: Path, capsnet: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    unknown = capsnet(*training, "--log", "tensorbord")
    assert (unknown.code, "did you mean 'tensorboard'?" in unknown.err) == (2, True)
    monkeypatch.setattr("accelerate.tracking.get_available_trackers", list)
    missing = capsnet(*training, "--log", "wandb")
    assert (missing.code, "pip install wandb" in missing.err) == (2, True)
    assert not (tmp_path / "my-run").exists()


def test_a_tracker_that_fails_does_not_end_the_training() -> None:
    class Broken:
        name = "broken"
        calls = 0

        def log(self, values: dict[str, float], step: int) -> None:
            self.calls += 1
            raise ConnectionError("gone\nfor good")

    class Watch:
        messages: tuple[str, ...] = ()

        def logged(self, *_: Any) -> None:
            pass

        def noticed(self, message: str) -> None:
            self.messages += (message,)

    broken, watch = Broken(), Watch()
    progress = tracking._Tracked([broken], watch, None, None, Path())
    for step in (10, 20):
        progress.logged(step, 20, {"loss": 1.0})
    assert broken.calls == 1
    assert watch.messages == ("broken failed and gets no more data: gone",)
