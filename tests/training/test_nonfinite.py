"""Losses, gradients and moments that are NaN or infinite: a step is skipped, or the run stops in a good state."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from capsnet import CapsNet
from capsnet._support.errors import NotFinite
from capsnet.data.dataset import Batch, Examples
from capsnet.models import build_model
from capsnet.training.batches import BatchSchedule, augmented
from capsnet.training.config import TrainConfig
from capsnet.training.loop import Interrupted, train
from capsnet.training.nonfinite import PATIENCE
from capsnet.training.run import Run
from capsnet.training.step import Stepper
from stripes import CONFIG, DATA, SMALL, Poisoned, StopAt, poisoned, resume, run_training, start, stripes


class RootAtZero(torch.autograd.Function):
    """Like the square root of 0: the value is 0, the gradient is infinite."""

    @staticmethod
    def forward(context, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(context, gradient: torch.Tensor) -> torch.Tensor:
        return gradient * torch.inf


def first_broken_step(config: TrainConfig, bad: int, after: int) -> int:
    plan = BatchSchedule.of(config, DATA.train)
    return next(
        step + 1 for step, indices, _ in plan.batches(after, torch.device("cpu")) if bad in indices.tolist()
    )


def test_stop_ends_the_run_and_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    data = poisoned(7)
    with pytest.raises(
        NotFinite, match=r"the loss is not finite in step \d+, at learning rate .*; there is no checkpoint"
    ):
        start(tmp_path / "early", data, CONFIG)
    step = first_broken_step(CONFIG, 7, 0)
    (event,) = Run(tmp_path / "early").nonfinite()
    assert (event["step"], event["what"]) == (step, "loss")
    torch.manual_seed(0)
    model = CapsNet(SMALL)

    class PoisonAt20(StopAt):
        def logged(self, step: int, steps: int, values: dict[str, float]) -> None:
            if step == 20:
                with torch.no_grad():
                    model.class_capsules.weight.fill_(torch.nan)

    with (
        Run.create(tmp_path / "run", model, CONFIG) as run,
        pytest.raises(
            NotFinite, match=r"checkpoint of step 10 is kept; train again with a smaller --learning-rate"
        ),
    ):
        train(model, DATA, CONFIG, run, device="cpu", progress=PoisonAt20(0))
    state = Run(tmp_path / "run").load_checkpoint()
    assert state.position["step"] == 10
    weights = [tensor for name, tensor in state.tensors.items() if name.startswith("model.")]
    assert all(torch.isfinite(tensor).all() for tensor in weights)
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_skip_skips_the_step_and_ends_with_finite_weights(tmp_path: Path) -> None:
    watch = StopAt(10**9)
    model = start(tmp_path / "run", poisoned(7), replace(CONFIG, on_nonfinite="skip"), watch)
    run = Run(tmp_path / "run")
    events = run.nonfinite()
    assert len(events) == CONFIG.epochs  # once in each
    assert all(7 in event["indices"] for event in events)
    assert [event["epoch"] for event in events] == list(range(CONFIG.epochs))
    assert all("skipped step" in notice for notice in watch.notices)
    assert all(weight.isfinite().all() for weight in model.parameters())
    assert run.result()["test_error"] < 0.5
    assert run.result()["steps_left_out"] == CONFIG.epochs


def test_a_skipped_step_changes_neither_weights_nor_moments() -> None:
    torch.manual_seed(0)
    data = poisoned(7)
    stepper = Stepper(CapsNet(SMALL), data.train, CONFIG, 4, "cpu")
    good, bad = torch.tensor([1, 2, 3, 4]), torch.tensor([5, 6, 7, 8])
    stepper.step(good, torch.rand(4, 0), 0.01)
    before = {name: tensor.clone() for name, tensor in stepper.state().items()}
    assert not stepper.is_known_nonfinite()
    stepper.step(bad, torch.rand(4, 0), 0.01)
    assert stepper.is_known_nonfinite()
    after = stepper.state()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    stepper.step(good, torch.rand(4, 0), 0.01)
    losses, broken = stepper.results()
    assert [(step.number, step.what) for step in broken] == [(1, "loss")]
    assert all(torch.isfinite(torch.tensor(list(losses.values()))))
    assert not torch.equal(
        stepper.state()["model.class_capsules.weight"], before["model.class_capsules.weight"]
    )


def test_infinite_gradients_are_skipped_like_an_infinite_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = CapsNet(SMALL)
    whole = model.loss
    monkeypatch.setattr(
        model, "loss", lambda batch: {**whole(batch), "loss": RootAtZero.apply(whole(batch)["loss"])}
    )
    stepper = Stepper(model, DATA.train, CONFIG, 4, "cpu")
    stepper.step(torch.arange(4), torch.rand(4, 0), 0.01)
    losses, broken = stepper.results()
    assert losses == {}
    assert [(step.number, step.what) for step in broken] == [(0, "gradients")]
    stepper.check_weights()


def test_a_stopped_run_resumed_with_skip_equals_one_that_skipped(tmp_path: Path) -> None:
    data, skip = poisoned(7), replace(CONFIG, on_nonfinite="skip")
    whole = start(tmp_path / "whole", data, skip)
    with pytest.raises(NotFinite, match="--on-nonfinite skip"):
        start(tmp_path / "run", data, CONFIG)
    model = build_model(tmp_path / "run", CONFIG.seed)
    with Run.reopen(tmp_path / "run") as run:
        run.change_training(skip)
        train(model, data, run.training(), run, device="cpu", resume=True)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), model.parameters(), strict=True))
    assert Run(tmp_path / "run").nonfinite() == Run(tmp_path / "whole").nonfinite()
    assert Run(tmp_path / "run").training().on_nonfinite == "skip"


def test_too_many_skipped_steps_in_a_row_end_the_run(tmp_path: Path) -> None:
    data = poisoned(*range(96))
    with pytest.raises(NotFinite, match=rf"{PATIENCE} steps in a row were skipped"):
        start(tmp_path / "run", data, replace(CONFIG, on_nonfinite="skip"))
    assert len(Run(tmp_path / "run").nonfinite()) == PATIENCE


def test_a_nonfinite_batch_can_be_made_again_from_the_log(tmp_path: Path) -> None:
    data = replace(poisoned(7), train=replace(poisoned(7).train, augment=None))
    with pytest.raises(NotFinite):
        start(tmp_path / "run", data, CONFIG)
    # as docs/runs.md says it
    run = Run(tmp_path / "run")
    config, event = run.training(), run.nonfinite()[-1]
    source = augmented(data.train, config)
    plan = BatchSchedule.of(config, source)
    batch = plan.batch(source, event["step"])
    model = build_model(run.folder, config.seed)
    assert not torch.isfinite(model.loss(batch)["loss"])
    clean = plan.batch(augmented(DATA.train, config), event["step"])
    assert torch.equal(clean.labels[:, 0], DATA.train.labels[event["indices"]])
    assert torch.isfinite(model.loss(clean)["loss"])
    generator = torch.Generator().manual_seed(event["epoch_seed"])
    order = torch.randperm(96, generator=generator).tolist()
    assert event["indices"] == order[(event["step"] - 1) * 16 :][:16]


@pytest.mark.parametrize("policy", ["stop", "skip"])
@pytest.mark.parametrize("rate", [1e5, 1e20, 3e38])
def test_an_absurd_learning_rate_never_writes_nan(tmp_path: Path, rate: float, policy) -> None:
    config = replace(CONFIG, steps=25, learning_rate=rate, schedule="constant", on_nonfinite=policy)
    folder = tmp_path / "run"
    message = ""
    try:
        start(folder, DATA, config)
    except NotFinite as error:
        message = str(error)
    if message:
        assert "not finite" in message
        assert "--learning-rate" in message
        assert Run(folder).result() is None
        assert not (folder / "model.safetensors").exists()
    else:
        CapsNet.from_pretrained(folder)  # refuses weights that are not finite
    for line in (
        (folder / "metrics.jsonl").read_text().splitlines() if (folder / "metrics.jsonl").exists() else ()
    ):
        json.loads(line, parse_constant=pytest.fail)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_a_cuda_graph_skips_a_nonfinite_step_on_the_device() -> None:
    class PoisonedThere(Poisoned):
        def batch(self, indices: torch.Tensor, uniforms: torch.Tensor | None = None) -> Batch:
            batch = Examples.batch(self, indices, uniforms)
            bad = (indices == 7).any()  # no branch: it would need the host
            return batch._replace(images=torch.where(bad, torch.nan, batch.images))

    torch.manual_seed(0)
    data = stripes(96, 0)
    stepper = Stepper(CapsNet(SMALL), PoisonedThere(data.images, data.labels), CONFIG, 4, "cuda")
    good, bad = torch.tensor([1, 2, 3, 4]).cuda(), torch.tensor([5, 6, 7, 8]).cuda()
    nothing = torch.rand(4, 0).cuda()
    for _ in range(6):
        stepper.step(good, nothing, 0.01)
    before = {name: tensor.clone() for name, tensor in stepper.state().items()}
    stepper.step(bad, nothing, 0.01)
    assert all(
        torch.equal(stepper.state()[name], tensor) for name, tensor in before.items() if "random" not in name
    )
    stepper.step(good, nothing, 0.01)
    losses, broken = stepper.results()
    assert [(step.number, step.what) for step in broken] == [(6, "loss")]
    assert losses["loss"] > 0


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
        with pytest.raises(NotFinite, match="moments are not finite; the checkpoint of step 10 is kept"):
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
    kept = Run(folder).load_checkpoint().position["step"]
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
