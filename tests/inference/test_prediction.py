"""Folders of images of any size, in order."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from capsnet import CapsNet, CapsNetConfig
from capsnet._support.errors import CapsnetError
from capsnet.data import Examples, listing, load
from capsnet.data.listing import files_in
from capsnet.inference.output import PredictionFile
from capsnet.inference.prediction import (
    BATCH_SIZE,
    Prediction,
    PredictOptions,
    image_files,
    looks_inverted,
    predict_files,
)
from capsnet.inference.saved_confidence import Confidence
from capsnet.models.saved import find_pretrained
from command import Command, run
from ranks import launch_ranks


@pytest.mark.parametrize("at_once", [1, 3, 65_536])
def test_files_are_listed_sorted_and_once_for_any_chunk_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(listing, "NAMES_AT_ONCE", at_once)
    for name in ("b.png", "a/2.png", "a/10.PNG", "a.png", "a/deep/1.jpg", "c.txt", "é.png", "B.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "linked").symlink_to(tmp_path / "a")
    (tmp_path / "linked.png").symlink_to(tmp_path / "b.png")
    found = [path.relative_to(tmp_path).as_posix() for path in files_in(tmp_path, {".png", ".jpg"})]
    expected = ["B.png", "a/10.PNG", "a/2.png", "a/deep/1.jpg", "a.png", "b.png", "linked.png", "é.png"]
    assert found == expected


def test_hidden_files_are_skipped(tmp_path: Path) -> None:
    for name in ("a.png", "._a.png", ".cache/t.png", "b/.t.png", "b/c.PBM"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [file.name for file in image_files([tmp_path])] == ["a.png", "c.PBM"]


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(CapsnetError, match="cannot be read"):
        list(files_in(tmp_path, {".png"}))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 300 pictures: two whole batches and a part of a third."""
    folder = tmp_path_factory.mktemp("pictures")
    noise = np.random.default_rng(0).integers(0, 256, (300, 28, 28), np.uint8)
    for number, pixels in enumerate(noise):
        Image.fromarray(pixels).save(folder / f"{number:03}.png")
    return folder


def predict(*arguments: object) -> list[str]:
    """`capsnet predict` with the model that comes with the package, on the CPU."""
    return ["predict", "capsnet-mnist", *map(str, arguments), "--device", "cpu"]


def read_shipped_digit() -> np.ndarray:
    examples = load("mnist5k").test
    assert isinstance(examples, Examples)
    return examples.images[0, 0].numpy()


@pytest.fixture(scope="module")
def answers(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What an uninterrupted run of one process says."""
    target = tmp_path_factory.mktemp("answers") / "answers.jsonl"
    assert run(*predict(pictures, "--out", target)) == 0
    return target.read_bytes()


@pytest.mark.quick
def test_answers_are_in_the_order_of_the_files(pictures: Path, answers: bytes) -> None:
    names = [json.loads(line)["name"] for line in answers.splitlines()]
    assert names == [str(pictures / f"{number:03}.png") for number in range(300)]


def test_two_processes_give_the_same_answers_as_one(pictures: Path, tmp_path: Path, answers: bytes) -> None:
    arguments = predict(pictures, "--out", tmp_path / "answers.jsonl")
    for process in launch_ranks(tmp_path, 2, *arguments):
        assert process.wait() == 0, process.said
    assert (tmp_path / "answers.jsonl").read_bytes() == answers


def test_other_options_need_a_new_output_file(pictures: Path, tmp_path: Path) -> None:
    target, model = tmp_path / "answers.jsonl", find_pretrained("capsnet-mnist")
    inverted = PredictOptions(invert=True)
    with PredictionFile(target, model, [pictures], BATCH_SIZE):
        pass
    with (
        pytest.raises(CapsnetError, match="delete it"),
        PredictionFile(target, model, [pictures], BATCH_SIZE, inverted),
    ):
        pass
    target.unlink()
    with PredictionFile(target, model, [pictures], BATCH_SIZE, inverted):
        pass
    with (
        pytest.raises(CapsnetError, match="name a file"),
        PredictionFile(pictures, model, [pictures], BATCH_SIZE),
    ):
        pass


@pytest.mark.parametrize("left", [0, 1, 40_000])
def test_an_interrupted_output_file_is_completed(
    pictures: Path, tmp_path: Path, answers: bytes, left: int, capsnet: Command
) -> None:
    target = tmp_path / "answers.jsonl"
    with PredictionFile(target, find_pretrained("capsnet-mnist"), [pictures], BATCH_SIZE):
        pass
    target.write_bytes(answers[: len(answers) - left])  # killed in the middle of a line
    done = capsnet(*predict(pictures, "--out", target))
    assert done.code == 0, done.err
    assert target.read_bytes() == answers


def test_the_last_batch_gets_the_same_answers_after_a_crash(pictures: Path) -> None:
    """They are the first that the process which takes the file up computes, and not among the last."""
    files = list(image_files([pictures]))[: BATCH_SIZE + 5]
    whole = list(predict_files(CapsNet.from_pretrained("capsnet-mnist"), files))
    model = CapsNet.from_pretrained("capsnet-mnist")  # as in a new process
    assert list(predict_files(model, files[BATCH_SIZE:])) == whole[BATCH_SIZE:]


def test_a_foreign_output_file_is_not_overwritten(pictures: Path, tmp_path: Path, answers: bytes) -> None:
    target = tmp_path / "answers.jsonl"
    target.write_bytes(b"mine\n")
    with pytest.raises(CapsnetError, match="holds other data"):
        PredictionFile(target, find_pretrained("capsnet-mnist"), [pictures], BATCH_SIZE).__enter__()
    assert target.read_bytes() == b"mine\n"


def test_dark_on_light_is_noticed_and_invert_fixes_it(tmp_path: Path, capsnet: Command) -> None:
    digit = read_shipped_digit()
    for name, pixels in (("light.png", digit), ("dark.png", 255 - digit)):
        Image.fromarray(pixels).save(tmp_path / name)
    light, dark, turned = (
        capsnet(*predict(tmp_path / "light.png", "--json")),
        capsnet(*predict(tmp_path / "dark.png", "--json")),
        capsnet(*predict(tmp_path / "dark.png", "--invert", "--json")),
    )
    assert "--invert" in dark.err
    assert "--invert" not in light.err + turned.err
    one, other = json.loads(light.out), json.loads(turned.out)
    assert (one["label"], one["score"]) == (other["label"], pytest.approx(other["score"], abs=1e-6))


@pytest.mark.parametrize(
    ("data", "inverted"),
    [
        ("mnist", True),
        ("mnist5k", True),
        ("npz:/data/pathmnist.npz", False),
        ("fashion-mnist", False),
        (None, False),
    ],
)
def test_only_models_of_light_digits_expect_dark_images(
    tmp_path: Path, data: str | None, inverted: bool
) -> None:
    Image.new("L", (28, 28), 250).save(tmp_path / "light.png")
    model = CapsNet.from_pretrained("capsnet-mnist")
    assert looks_inverted(data, model, tmp_path / "light.png") == inverted


def test_scores_of_all_classes_are_optional(pictures: Path, tmp_path: Path, capsnet: Command) -> None:
    model, files = CapsNet.from_pretrained("capsnet-mnist"), [pictures / "000.png"]
    (answer,) = predict_files(model, files, options=PredictOptions(all_scores=True))
    assert list(answer.as_dict()["scores"]) == [str(number) for number in range(10)]
    assert answer.score == max(answer.scores.values()) == answer.scores[answer.label]
    (alone,) = predict_files(model, files)
    assert "scores" not in alone.as_dict()
    with PredictionFile(tmp_path / "a.jsonl", find_pretrained("capsnet-mnist"), [pictures], BATCH_SIZE):
        pass
    options = PredictOptions(all_scores=True)
    with pytest.raises(CapsnetError, match="other options"):
        PredictionFile(
            tmp_path / "a.jsonl", find_pretrained("capsnet-mnist"), [pictures], BATCH_SIZE, options
        ).__enter__()
    refused = capsnet(*predict(pictures / "000.png", "--scores"))
    assert refused.code == 2
    assert "--json" in refused.err


def test_changed_input_files_are_noticed_when_resuming(tmp_path: Path) -> None:
    model, target = find_pretrained("capsnet-mnist"), tmp_path / "answers.jsonl"
    files = [tmp_path / name for name in ("a.png", "b.png", "c.png")]
    said = [Prediction(str(file), "1", 0.5) for file in files[:2]]
    with PredictionFile(target, model, [tmp_path], 2) as file:
        assert file.append(said) == 2
    with PredictionFile(target, model, [tmp_path], 2) as file:
        file.resume(rest := iter(files))
        assert file.kept == 2
        assert next(rest) == files[2]
    with (
        PredictionFile(target, model, [tmp_path], 2) as file,
        pytest.raises(CapsnetError, match="other files"),
    ):
        file.resume(iter(files[1:]))


def test_a_bad_file_raises_or_is_reported_in_its_place(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes((pictures / "000.png").read_bytes())
    (tmp_path / "1.png").write_text("no image")
    (tmp_path / "2.png").write_bytes((pictures / "001.png").read_bytes())
    model = CapsNet.from_pretrained("capsnet-mnist")
    told = list(predict_files(model, image_files([tmp_path]), keep_going=True))
    assert [answer.label is None for answer in told] == [False, True, False]
    assert "1.png" in (told[1].error or "")
    strict = predict_files(model, image_files([tmp_path]))
    assert next(strict) == told[0]
    with pytest.raises(CapsnetError, match=r"1\.png"):
        next(strict)


def test_a_name_that_is_not_utf8_has_an_answer_in_the_output_file(
    pictures: Path, tmp_path: Path, capsnet: Command
) -> None:
    odd = tmp_path / os.fsdecode(b"a\xff.png")
    odd.write_bytes((pictures / "000.png").read_bytes())
    target = tmp_path / "answers.jsonl"
    for _ in range(2):  # the second time it is complete
        assert capsnet(*predict(odd, "--out", target)).code == 0
    (line,) = target.read_text().splitlines()
    assert json.loads(line)["label"] is not None


def test_refusals_need_a_calibrated_probability() -> None:
    with pytest.raises(CapsnetError, match="refuse_below needs a probability"):
        PredictOptions(refuse_below=0.5)


def test_an_image_without_finite_scores_leaves_the_others_refused(pictures: Path) -> None:
    model = CapsNet.from_pretrained("capsnet-mnist")
    scores = model.scores
    row = scores(torch.zeros(1, 1, 28, 28))
    model.scores = lambda images: torch.cat([row, torch.full_like(row, torch.nan)])  # type: ignore[method-assign]
    options = PredictOptions(confidence=Confidence(1.0, 100, None), refuse_below=1.0)
    files = [pictures / "000.png", pictures / "001.png"]
    first, second = predict_files(model, files, options=options, keep_going=True)
    assert (first.label, first.error) == (None, None)
    assert first.refused is not None
    assert "not finite" in (second.error or "")


def test_models_with_two_channels_cannot_read_image_files(pictures: Path) -> None:
    model = CapsNet(CapsNetConfig(image_shape=(2, 20, 20), stem_channels=4, primary_types=1))
    with pytest.raises(CapsnetError, match="2 channels"):
        list(predict_files(model, list(image_files([pictures]))[:1]))
