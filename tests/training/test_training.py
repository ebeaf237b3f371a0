import json
import random
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torture.launch import WARM

from capsnet import CapsNet, CapsnetError
from capsnet.data import Examples, load
from capsnet.data.augmentation import CenterCrop, RandomCrop, RandomPlacement
from capsnet.data.multi_label import MultiLabel
from capsnet.inference.evaluation import evaluate, wilson_interval
from capsnet.training.batches import BatchSchedule, augmented
from capsnet.training.checkpoint import NEWEST
from capsnet.training.config import TrainConfig
from capsnet.training.loop import Interrupted, train
from capsnet.training.run import Run
from capsnet.training.step import Stepper
from stripes import CONFIG, DATA, SMALL, StopAt, losses, resume, run_training, train_or_resume


@pytest.mark.quick
def test_a_finished_run_has_result_metrics_environment_and_weights(tmp_path: Path) -> None:
    evaluation = run_training(tmp_path / "run")
    run = Run(tmp_path / "run")
    result = run.result()
    assert evaluation.error < 0.2
    assert result["test_error"] == evaluation.error
    assert result["interval_95"] == list(wilson_interval(evaluation.errors, 60))
    assert (result["n"], result["seed"], result["steps"], result["parameters"]) == (
        60,
        0,
        30,
        SMALL.parameter_count(),
    )
    assert result["environment"]["versions"]["torch"] == torch.__version__
    assert result["class_names"] == ["top", "middle", "bottom"]
    assert json.loads((run.folder / "environment.json").read_text())["processor"]
    assert [step for step, _ in losses(run.folder)] == [10, 20, 30]
    assert [line["step"] for line in run.metrics() if "test_error" in line] == [12, 24, 30]
    assert not list(run.folder.glob("state*"))
    reloaded = evaluate(CapsNet.from_pretrained(run.folder), DATA.test)
    assert torch.equal(reloaded.scores, evaluation.scores)


@pytest.mark.slow
def test_the_loss_falls_in_the_first_50_steps_of_the_published_network(tmp_path: Path) -> None:
    digits = load("mnist5k")
    data = replace(digits, test=digits.test.subset(torch.arange(20)))
    config = TrainConfig(steps=50, batch_size=4, schedule="paper", evaluate_every=0)
    torch.manual_seed(0)
    model = CapsNet()
    with Run.create(tmp_path / "run", model, config) as run:
        train(model, data, config, run, device="cpu")
    falling = [loss for _, loss in losses(tmp_path / "run")]
    assert falling[-1] < 0.8 * falling[0]


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run_training(tmp_path / name, replace(CONFIG, seed=seed, steps=10))
    a, b, c = ((tmp_path / name / "model.safetensors").read_bytes() for name in "abc")
    assert a == b != c


@pytest.mark.parametrize(("stop", "number"), [(10, signal.SIGTERM), (20, signal.SIGINT)])
def test_an_interrupted_and_resumed_run_equals_an_uninterrupted_one(
    tmp_path: Path, stop: int, number: int
) -> None:
    run_training(tmp_path / "whole")
    torch.manual_seed(CONFIG.seed)
    model = CapsNet(SMALL)
    with (
        Run.create(tmp_path / "resumed", model, CONFIG) as run,
        pytest.raises(Interrupted, match="--resume") as caught,
    ):
        train(model, DATA, CONFIG, run, device="cpu", progress=StopAt(stop, number))
    assert caught.value.number == number
    assert Run(tmp_path / "resumed").result() is None
    torch.manual_seed(99)  # what the process drew before must not matter
    resume(tmp_path / "resumed")
    whole, resumed = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "resumed"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    steps = [step for step, _ in losses(tmp_path / "resumed")]
    assert steps == sorted(set(steps))
    assert steps[-1] == 30


def test_kill_9_at_any_moment_loses_nothing(tmp_path: Path, whole_weights: bytes) -> None:
    folder, chance, kills = tmp_path / "killed", random.Random(0), 0
    saved = folder / NEWEST
    for _ in range(3):
        before = saved.stat().st_mtime_ns if saved.exists() else 0
        process = WARM.Process(target=train_or_resume, args=(folder,))
        process.start()
        while process.is_alive() and (not saved.exists() or saved.stat().st_mtime_ns == before):
            time.sleep(0.001)  # until it has saved something new; the kill then lands somewhere after that
        time.sleep(chance.random() * 0.02)
        process.kill()
        process.join()
        kills += process.exitcode == -signal.SIGKILL
    assert kills >= 2
    train_or_resume(folder)
    assert (folder / "model.safetensors").read_bytes() == whole_weights


def test_moments_too_small_to_matter_are_dropped_and_change_no_weight(
    tmp_path: Path, whole_weights: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of units that never fire would stay just above 0, where arithmetic is slow."""
    monkeypatch.setattr("capsnet.training.step.DROP_EVERY", 5)
    seen: list[tuple[float, float]] = []

    def watched(stepper: Stepper) -> None:
        moment = next(iter(stepper.optimizer.state.values()))["exp_avg"].flatten()
        kept = moment[:2].clone()
        moment[0] = 1e-40
        dropped(stepper)
        seen.append((float(moment[0]), float(moment[1] - kept[1])))
        moment[0] = kept[0]

    dropped = Stepper._drop_denormals
    monkeypatch.setattr(Stepper, "_drop_denormals", watched)
    run_training(tmp_path / "run")
    assert seen == [(0.0, 0.0)] * 6
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == whole_weights


def test_one_folder_belongs_to_one_run(stopped_run: Path, tmp_path: Path) -> None:
    with pytest.raises(CapsnetError, match=r"not empty.*--resume"):
        Run.create(stopped_run, CapsNet(SMALL), CONFIG)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(CapsnetError, match=r"not empty; choose another --out"):
        Run.create(tmp_path, CapsNet(SMALL), CONFIG)


def test_a_half_written_line_of_metrics_is_skipped(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", CapsNet(SMALL), CONFIG)
    run.append_metrics({"step": 1, "loss": 2.0})
    with run.metrics_path.open("a") as file:
        file.write('{"step": 2, "lo')
    assert run.metrics() == [{"step": 1, "loss": 2.0}]


def test_every_example_is_seen_once_per_epoch_in_an_order_that_the_seed_decides() -> None:
    plan = BatchSchedule.of(TrainConfig(batch_size=16, epochs=2, seed=3), DATA.train)
    batches = list(plan.batches(0, torch.device("cpu")))
    assert [step for step, _, _ in batches] == list(range(12))
    first, second = (torch.cat([indices for _, indices, _ in batches[k : k + 6]]) for k in (0, 6))
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(96))
    assert not torch.equal(first, second)
    later = list(plan.batches(8, torch.device("cpu")))
    assert torch.equal(later[0][1], batches[8][1])


def test_the_last_steps_see_images_as_they_are() -> None:
    config = TrainConfig(data="stripes", steps=10, batch_size=16, rotation=15, scale=0.1, settle=0.2)
    source = augmented(DATA.train, config)
    schedule = BatchSchedule.of(config, source)
    for step in range(1, 11):
        _, indices, _ = next(schedule.batches(step - 1, torch.device("cpu")))
        images = schedule.batch(source, step).images
        plain = DATA.train.batch(indices).images
        assert torch.allclose(images, plain, atol=1e-6) == (step > 8)


def test_the_last_steps_keep_the_places_that_belong_to_the_data() -> None:
    digits = Examples(torch.zeros(64, 1, 20, 20, dtype=torch.uint8), torch.zeros(64, dtype=torch.long))
    placed = replace(digits, augment=RandomPlacement(30))
    config = replace(CONFIG, steps=2, batch_size=64, settle=0.5, rotation=15.0)
    source = augmented(placed, config)
    schedule = BatchSchedule.of(config, source)
    (*_, drawn) = next(schedule.batches(1, torch.device("cpu")))
    assert (drawn[:, :-2] == 0.5).all()
    assert len(drawn[:, -2:].unique()) > 100


def test_the_last_steps_of_images_with_several_classes_are_still_too() -> None:
    source = MultiLabel(torch.zeros(8, 1, 20, 20, dtype=torch.uint8), torch.ones(8, 3, dtype=torch.bool))
    assert BatchSchedule.of(replace(CONFIG, steps=10, settle=0.2), source).still == 8


def test_rotation_and_scale_also_apply_to_images_that_are_cropped() -> None:
    crop = replace(DATA.train, augment=RandomCrop(10))
    plain = TrainConfig(data="stripes", steps=4, batch_size=16)
    assert augmented(crop, plain) is crop
    source = augmented(crop, replace(plain, rotation=15, scale=0.1, settle=0.25))
    schedule = BatchSchedule.of(replace(plain, settle=0.25), source)
    middle = replace(DATA.train, augment=CenterCrop(10))
    for step in range(1, 5):
        _, indices, uniforms = next(schedule.batches(step - 1, torch.device("cpu")))
        images = schedule.batch(source, step).images
        assert images.shape[2:] == (10, 10)
        as_they_are = middle.batch(indices) if step == 4 else crop.batch(indices, uniforms[:, -2:])
        assert torch.allclose(images, as_they_are.images, atol=1e-6) == (step == 4)
