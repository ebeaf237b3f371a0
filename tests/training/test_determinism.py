"""The same seed, the same bits; and everything random comes from the seed."""

import json
import os
import random
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from capsnet import CapsNet, CapsnetError
from capsnet._support.validation import parse_config
from capsnet.data import load
from capsnet.experiments import EXPERIMENTS
from capsnet.models import build_model
from capsnet.training.config import TrainConfig
from capsnet.training.determinism import WORKSPACE, deterministic
from capsnet.training.loop import train
from capsnet.training.run import Run
from command import Command
from stripes import CONFIG, losses, resume, run_training

SHORT = replace(CONFIG, steps=12, evaluate_every=0)


def settings() -> tuple[object, ...]:
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.deterministic,
        torch.backends.cudnn.benchmark,
        torch.utils.deterministic.fill_uninitialized_memory,
        os.environ.get(WORKSPACE),
    )


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def test_settings_are_restored_after_a_deterministic_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(WORKSPACE, raising=False)
    before = settings()
    with deterministic(False):
        assert settings() == before
    with deterministic(True):
        assert settings() == (True, False, True, False, False, ":4096:8")
        with deterministic(True):
            pass
        assert settings() == (True, False, True, False, False, ":4096:8")
    assert settings() == before
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    with pytest.raises(KeyError), deterministic(True):
        raise KeyError
    assert settings() == (*before[:3], True, *before[4:])


def test_an_operation_without_a_deterministic_form_is_refused_in_one_line() -> None:
    before = settings()
    with (
        pytest.raises(
            CapsnetError, match=r"^an operation has no deterministic form here \(put_\); train without"
        ),
        deterministic(True),
    ):
        torch.zeros(4).put_(torch.tensor([1, 1]), torch.tensor([1.0, 2.0]))
    assert settings() == before
    with pytest.raises(RuntimeError, match="mat1 and mat2"), deterministic(True):  # others pass as they are
        torch.zeros(2, 3) @ torch.zeros(2, 3)


def test_training_refuses_an_operation_without_a_deterministic_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = CapsNet.loss

    def last_one_wins(model: CapsNet, batch: object) -> dict[str, torch.Tensor]:
        torch.zeros(4).put_(torch.tensor([1, 1]), torch.tensor([1.0, 2.0]))
        return whole(model, batch)

    monkeypatch.setattr(CapsNet, "loss", last_one_wins)
    with pytest.raises(CapsnetError, match="without --deterministic"):
        run_training(tmp_path / "strict", replace(SHORT, deterministic=True))
    run_training(tmp_path / "lax", SHORT)


def test_a_contradicting_cublas_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WORKSPACE, ":0:0")
    with pytest.raises(CapsnetError, match=r"^CUBLAS_WORKSPACE_CONFIG is ':0:0'[^\n]*$"), deterministic(True):
        pass
    monkeypatch.setenv(WORKSPACE, ":16:8")
    with deterministic(True):
        assert os.environ[WORKSPACE] == ":16:8"
    assert os.environ[WORKSPACE] == ":16:8"


def test_deterministic_changes_no_bit_on_a_cpu_and_is_kept_when_resuming(tmp_path: Path) -> None:
    folder = tmp_path / "made-elsewhere"
    run_training(tmp_path / "plain", SHORT)
    run_training(folder, replace(SHORT, deterministic=True))
    assert weights(folder) == weights(tmp_path / "plain")
    assert losses(folder) == losses(tmp_path / "plain")
    assert json.loads((folder / "config.json").read_text())["training"]["deterministic"] is True
    assert Run(folder).training().deterministic


def test_deterministic_is_a_command_line_option(tmp_path: Path, capsnet: Command) -> None:
    run = tmp_path / "run"
    small = [
        "--stem-channels",
        "8",
        "--primary-types",
        "1",
        "--steps",
        "1",
        "--batch-size",
        "4",
        "--no-report",
    ]
    done = capsnet("train", *small, "--deterministic", "--out", str(run), "--device", "cpu")
    assert done.code == 0, done.err
    assert Run(run).training().deterministic
    assert "A CPU always is" in " ".join(capsnet("train", "--help").out.replace("│", " ").split())
    changed = capsnet("train", "--resume", str(run), "--deterministic")
    assert (changed.code, changed.err.count("\n")) == (2, 1)
    assert "--deterministic cannot be changed when resuming" in changed.err


def test_runs_and_records_without_the_deterministic_field_are_still_read(tmp_path: Path) -> None:
    old = {name: value for name, value in asdict(SHORT).items() if name != "deterministic"}
    assert parse_config(TrainConfig, old, tmp_path) == SHORT
    variant = next(iter(EXPERIMENTS.values())).variants("quick")[0]
    strict = replace(variant, training=replace(variant.training, deterministic=True))
    assert variant.settings(0) == strict.settings(0)


def test_all_random_numbers_come_from_the_seed_in_config_json(tmp_path: Path) -> None:
    """Nothing but config.json is left of the run, and whatever else draws numbers has drawn some."""
    run_training(tmp_path / "run", SHORT)
    again = tmp_path / "again"
    again.mkdir()
    (again / "config.json").write_bytes((tmp_path / "run" / "config.json").read_bytes())
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    states = random.getstate(), np.random.get_state()[1].tolist()
    resume(again)
    assert weights(again) == weights(tmp_path / "run")
    assert losses(again) == losses(tmp_path / "run")
    assert (
        random.getstate(),
        np.random.get_state()[1].tolist(),
    ) == states  # global generators are left alone
    other = run_training(tmp_path / "other", replace(SHORT, seed=1))
    assert weights(tmp_path / "other") != weights(again)
    assert other.n == 60


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_a_deterministic_training_on_a_gpu_gives_the_same_bits(tmp_path: Path) -> None:
    config = TrainConfig(steps=40, batch_size=64, deterministic=True)
    for name in ("first", "second"):
        torch.manual_seed(0)
        model = CapsNet()
        with Run.create(tmp_path / name, model, config) as run:
            train(model, load("mnist5k"), config, run, device="cuda")
    assert weights(tmp_path / "first") == weights(tmp_path / "second")
    assert build_model(tmp_path / "first", 0).config == CapsNet().config
