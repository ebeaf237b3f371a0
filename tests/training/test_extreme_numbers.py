"""Saved states, figures and durations stay finite numbers, whatever went before."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from capsnet import CapsNet
from capsnet._support.errors import NotFinite
from capsnet.models import build_model
from capsnet.training.checkpoint import BEFORE, NEWEST, save_state
from capsnet.training.loop import Interrupted, train
from capsnet.training.nonfinite import PATIENCE
from capsnet.training.run import Run
from capsnet.training.step import Stepper
from stripes import CONFIG, DATA, SMALL, StopAt, poisoned, resume, run_training, start


def spoil(run: Path, name: str, value: float) -> None:
    """As the last save of a version, or a machine, that did not look: the checksum is right."""
    state = Run(run).load_state()
    state.tensors[name].view(-1)[3] = value
    save_state(run, state.tensors, state.position, keep_newest=False)


@pytest.mark.parametrize(
    ("name", "value"), [("model.class_capsules.weight", torch.nan), ("optimizer.0.exp_avg_sq", torch.inf)]
)
def test_a_checkpoint_with_nan_counts_as_damaged(
    stopped_run: Path, whole_weights: bytes, name: str, value: float
) -> None:
    spoil(stopped_run, name, value)
    watch = StopAt(10**9)
    with Run.reopen(stopped_run) as run:
        train(
            build_model(stopped_run, 0),
            DATA,
            CONFIG,
            run,
            device="cpu",
            resume=True,
            progress=watch,
        )
    (notice,) = watch.notices
    assert "damaged (numbers in it are NaN or infinite); going on from the save before it, step 20" in notice
    assert (stopped_run / "model.safetensors").read_bytes() == whole_weights


@pytest.mark.parametrize("moment", ["exp_avg", "exp_avg_sq"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_optimizer_moments_that_are_not_finite_are_not_saved(moment: str, value: float) -> None:
    torch.manual_seed(0)
    model = CapsNet(SMALL)
    stepper = Stepper(model, DATA.train, CONFIG, 4, "cpu")
    stepper.step(torch.arange(4), torch.rand(4, 0), 0.01)
    stepper.state()
    stepper.optimizer.state[model.class_capsules.weight][moment].view(-1)[5] = value
    with pytest.raises(NotFinite, match="the optimizer's moments are not finite"):
        stepper.state()


def test_nan_in_the_moments_keeps_the_last_good_checkpoint(tmp_path: Path, whole_weights: bytes) -> None:
    torch.manual_seed(0)
    model = CapsNet(SMALL)
    steppers: list[Stepper] = []

    class Remembered(Stepper):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments)
            steppers.append(self)

    class SpoilAt20(StopAt):
        """Between the step and its save: a look at the weights alone would see nothing."""

        def logged(self, step: int, steps: int, values: dict[str, float]) -> None:
            if step == 20:
                steppers[0].optimizer.state[model.class_capsules.weight]["exp_avg"].fill_(torch.nan)

    with (
        Run.create(tmp_path / "run", model, CONFIG) as run,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr("capsnet.training.loop.Stepper", Remembered)
        with pytest.raises(NotFinite, match="moments are not finite; the state of step 10 is kept"):
            train(model, DATA, CONFIG, run, device="cpu", progress=SpoilAt20(0))
    resume(tmp_path / "run")
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == whole_weights


def test_resuming_does_not_reset_the_count_of_skipped_steps(tmp_path: Path) -> None:
    """Else a run whose every step is broken would go on for ever, as long as it is stopped often enough."""
    data, config = poisoned(*range(96)), replace(CONFIG, on_nonfinite="skip", evaluate_every=0)
    with pytest.raises(NotFinite, match=f"step {PATIENCE},"):
        start(tmp_path / "whole", data, config)

    class StopsAtNotice(StopAt):
        def noticed(self, message: str) -> None:
            self.logged(10, 30, {})

    folder = tmp_path / "run"
    with pytest.raises(Interrupted):
        start(folder, data, config, StopsAtNotice(0))
    kept = Run(folder).load_state().position["step"]
    assert 10 <= kept < PATIENCE
    with Run.reopen(folder) as run, pytest.raises(NotFinite, match=f"step {PATIENCE},"):
        train(build_model(folder, 0), data, config, run, device="cpu", resume=True)
    assert Run(folder).nonfinite() == Run(tmp_path / "whole").nonfinite()


def test_the_mean_of_huge_losses_does_not_overflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = CapsNet.loss
    monkeypatch.setattr(
        CapsNet, "loss", lambda model, batch: {"loss": whole(model, batch)["loss"] * 0 + 3e38}
    )
    run_training(tmp_path / "run", replace(CONFIG, steps=10))
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    first = json.loads(lines[0], parse_constant=pytest.fail)
    assert first["loss"] == pytest.approx(3e38)


def test_speed_is_finite_after_1e17_seconds_of_training(stopped_run: Path) -> None:
    """With so many seconds behind it a float holds no fraction of one: the next lap would have taken no time."""
    state = Run(stopped_run).load_state()
    save_state(stopped_run, state.tensors, {**state.position, "seconds": 1e17}, keep_newest=False)
    resume(stopped_run)
    speeds = [line["images_per_second"] for line in Run(stopped_run).metrics() if "loss" in line]
    assert all(0 < speed < 1e7 for speed in speeds)
    assert Run(stopped_run).result()["seconds"] >= 1e17


def test_nan_in_both_checkpoints_refuses_the_run_in_one_line(stopped_run: Path) -> None:
    spoil(stopped_run, "model.class_capsules.weight", torch.nan)
    (stopped_run / BEFORE).write_bytes((stopped_run / NEWEST).read_bytes())
    with pytest.raises(ValueError, match=r"^[^\n]*NaN or infinite[^\n]*start it again with another --out$"):
        resume(stopped_run)
