"""A run's folder after a crash, on a damaged disk, with NaN in a checkpoint, or in two processes."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torture.launch import WARM

from capsnet import CapsNet, CapsnetError
from capsnet._support.errors import CannotWrite
from capsnet._support.files import write_text
from capsnet.models import build_model
from capsnet.training.checkpoint import BEFORE, NEWEST, save_checkpoint
from capsnet.training.loop import train
from capsnet.training.run import Run
from stripes import CONFIG, DATA, SMALL, StopAt, hold, resume, run_training


def flip_a_bit(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def flip_a_weight(path: Path) -> None:
    flip_a_bit(path, -100)


def flip_the_step(path: Path) -> None:
    """The position is in the file's header; a checksum of the tensors alone would not see this."""
    flip_a_bit(path, path.read_bytes().index(b'step\\": 21') + 8)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [flip_a_weight, flip_the_step, truncate, empty])
def test_a_damaged_checkpoint_falls_back_to_the_previous_one_and_gives_the_same_weights(
    stopped_run: Path, whole_weights: bytes, damage
) -> None:
    damage(stopped_run / NEWEST)
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
    assert "state.safetensors is damaged" in notice
    assert "resuming from the checkpoint before it, step 20" in notice
    assert (stopped_run / "model.safetensors").read_bytes() == whole_weights


def test_two_damaged_checkpoints_refuse_the_run_in_one_line(stopped_run: Path) -> None:
    flip_a_weight(stopped_run / NEWEST)
    truncate(stopped_run / BEFORE)
    with pytest.raises(CapsnetError, match=r"^[^\n]*state\.safetensors is damaged[^\n]*start again[^\n]*$"):
        resume(stopped_run)


def test_a_damaged_checkpoint_never_replaces_the_good_previous_one(stopped_run: Path) -> None:
    flip_a_weight(stopped_run / NEWEST)
    before = (stopped_run / BEFORE).read_bytes()
    with Run.reopen(stopped_run) as run:
        run.save_checkpoint(run.load_checkpoint().tensors, {"step": 11, "seconds": 1.0})
    assert (stopped_run / BEFORE).read_bytes() == before
    assert Run(stopped_run).load_checkpoint().position["step"] == 11


def test_a_checkpoint_with_missing_tensors_is_refused(stopped_run: Path) -> None:
    tensors = load_file(stopped_run / NEWEST)
    with Run.reopen(stopped_run) as run:
        for without in ("random.cpu", "model.class_capsules.weight", "optimizer.0.exp_avg"):
            rest = {name: tensor for name, tensor in tensors.items() if name != without}
            run.save_checkpoint(rest, {"step": 20, "seconds": 1.0})
            with pytest.raises(CapsnetError, match="does not fit the run's config"):
                train(build_model(stopped_run, 0), DATA, CONFIG, run, device="cpu", resume=True)
    (stopped_run / BEFORE).unlink()
    save_file(tensors, stopped_run / NEWEST)
    with pytest.raises(CapsnetError, match="damaged"):
        Run(stopped_run).load_checkpoint()


def test_the_previous_checkpoint_stays_until_the_next_is_complete(
    stopped_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors, position = Run(stopped_run).load_checkpoint().tensors, {"step": 25, "seconds": 1.0}

    def die(path: Path, *arguments: object) -> None:
        raise KeyboardInterrupt

    for moment in ("write_bytes", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(Path, moment, die)
            with pytest.raises(KeyboardInterrupt):
                Run(stopped_run).save_checkpoint(tensors, position)
        assert Run(stopped_run).load_checkpoint().position["step"] == 21
    # between the two renames: the newest has become the one before, the next is not in place yet
    (stopped_run / NEWEST).replace(stopped_run / BEFORE)
    state = Run(stopped_run).load_checkpoint()
    assert (state.position["step"], state.notice) == (21, "")


def test_half_written_files_of_a_killed_process_are_removed(stopped_run: Path) -> None:
    leftover = stopped_run / ".state.safetensors.4711.tmp"
    leftover.write_bytes(b"half")
    resume(stopped_run)
    assert not leftover.exists()
    (stopped_run / NEWEST).write_bytes(b"killed between result.json and its removal")
    with Run.reopen(stopped_run):
        assert not (stopped_run / NEWEST).exists()


@pytest.mark.parametrize("left", [[], ["environment.json"], [".config.json.4711.tmp", "environment.json"]])
def test_a_training_killed_before_its_config_was_written_starts_again(
    tmp_path: Path, left: list[str]
) -> None:
    folder = tmp_path / "run"
    for name in [".lock", *left]:
        write_text(folder / name, "")
    with pytest.raises(CapsnetError, match=r"no run at .*capsnet train --out"):
        Run.reopen(folder)
    run_training(folder, replace(CONFIG, steps=1))
    assert Run(folder).result()["steps"] == 1


def test_a_full_disk_ends_the_run_with_a_reason(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", CapsNet(SMALL), CONFIG)
    run.metrics_path.symlink_to("/dev/full")
    with pytest.raises(CannotWrite, match=r"metrics\.jsonl: No space left on device; free some space"):
        run.append_metrics({"step": 1})


def test_a_second_process_cannot_use_the_folder_of_the_first(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    ours, theirs = WARM.Pipe()
    first = WARM.Process(target=hold, args=(folder, theirs))
    first.start()
    assert ours.recv() == "held"
    config = (folder / "config.json").read_text()
    with pytest.raises(CapsnetError, match="in use by another process"):
        Run.create(folder, CapsNet(SMALL), replace(CONFIG, seed=5))
    with pytest.raises(CapsnetError, match="in use by another process"):
        resume(folder)
    ours.send("end")
    first.join()
    assert (folder / "config.json").read_text() == config


def test_a_checkpoint_is_a_safetensors_file_that_holds_its_step(stopped_run: Path) -> None:
    with safe_open(stopped_run / NEWEST, "pt") as file:
        assert json.loads(file.metadata()["position"])["step"] == 21


def spoil(run: Path, name: str, value: float) -> None:
    """As the last save of a version, or a machine, that did not look: the checksum is right."""
    state = Run(run).load_checkpoint()
    state.tensors[name].view(-1)[3] = value
    save_checkpoint(run, state.tensors, state.position, keep_newest=False)


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
    assert "damaged (it holds NaN or infinity); resuming from the checkpoint before it, step 20" in notice
    assert (stopped_run / "model.safetensors").read_bytes() == whole_weights


def test_nan_in_both_checkpoints_refuses_the_run_in_one_line(stopped_run: Path) -> None:
    spoil(stopped_run, "model.class_capsules.weight", torch.nan)
    (stopped_run / BEFORE).write_bytes((stopped_run / NEWEST).read_bytes())
    with pytest.raises(ValueError, match=r"^[^\n]*NaN or infinity[^\n]*start again with another --out$"):
        resume(stopped_run)
