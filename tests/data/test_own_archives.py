"""`npz:FILE` in MedMNIST's layout, and `hf:…` through Hugging Face `datasets`."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from capsnet import CapsnetError
from capsnet.data import Examples, load, short_name
from capsnet.data.multi_label import MultiLabel
from capsnet.data.npz import write_npz
from capsnet.data.npz_images import from_parts
from capsnet.experiments.comparison import comparison, fingerprint
from capsnet.models import MODELS
from command import Command

RNG = np.random.default_rng(0)
#: 30 images to train on, 10 to calibrate with, 20 to test on.
SIZES = {"train": 30, "val": 10, "test": 20}
SMALL = (
    "--set",
    "model.stem_channels=8",
    "--set",
    "model.primary_types=2",
    "--device",
    "cpu",
    "--steps",
    "40",
)


def bars(labels: np.ndarray, channels: int = 1) -> np.ndarray:
    """Images whose classes are bright bars; a row of `labels` says which bars."""
    images = RNG.integers(0, 60, (len(labels), 20, 20, channels), dtype=np.uint8)
    for image, row in zip(images, labels, strict=True):
        for number in np.flatnonzero(row):
            image[3 + 5 * number : 6 + 5 * number] = 250
    return images[..., 0] if channels == 1 else images


def medmnist(path: Path, channels: int = 1, several: bool = False) -> Path:
    arrays = {}
    for part, size in SIZES.items():
        numbers = np.arange(size) % 3
        labels = RNG.random((size, 3)) < 0.5 if several else np.eye(3, dtype=bool)[numbers]
        arrays[f"{part}_images"] = bars(labels, channels)
        arrays[f"{part}_labels"] = labels.astype(np.uint8) if several else numbers[:, None].astype(np.uint8)
    write_npz(path, arrays)
    return path


@pytest.mark.parametrize("channels", [1, 3])
def test_npz_keeps_its_splits(tmp_path: Path, channels: int) -> None:
    file = medmnist(tmp_path / "mine.npz", channels)
    dataset = load(f"npz:{file}")
    assert [len(part) for part in (dataset.train, dataset.validation, dataset.test)] == list(SIZES.values())
    assert dataset.image_shape == (channels, 20, 20)
    assert dataset.class_names == ("0", "1", "2")
    with np.load(file) as arrays:
        expected = arrays["test_images"].reshape(20, 20, 20, channels).transpose(0, 3, 1, 2)
        assert isinstance(dataset.test, Examples)
        assert (dataset.test.images.numpy() == expected).all()
        assert dataset.test.labels.tolist() == arrays["test_labels"][:, 0].tolist()
    assert short_name(f"npz:{file}") == "mine.npz"


def test_an_npz_may_name_its_classes(tmp_path: Path) -> None:
    with np.load(medmnist(tmp_path / "numbers.npz")) as arrays:
        write_npz(tmp_path / "named.npz", {**arrays, "class_names": np.array(["top", "mid", "low"])})
        numbers = arrays["test_labels"][:, 0].tolist()
    dataset = load(f"npz:{tmp_path / 'named.npz'}")
    assert dataset.class_names == ("top", "mid", "low")
    assert isinstance(dataset.test, Examples)
    assert dataset.test.labels.tolist() == numbers


def test_several_classes_in_an_image_are_trained_measured_and_reported(
    tmp_path: Path, capsnet: Command
) -> None:
    file = medmnist(tmp_path / "several.npz", several=True)
    dataset = load(f"npz:{file}")
    assert dataset.is_multi_label
    assert isinstance(dataset.train, MultiLabel)
    targets = dataset.train.batch(torch.arange(30)).targets(3)
    assert torch.equal(targets, dataset.train.present.float())
    drawing = capsnet(
        "train", "--data", f"npz:{file}", *SMALL, "--set", "model.decoder=8", "--out", tmp_path / "no"
    )
    assert (drawing.code, "--no-reconstruction" in drawing.err) == (2, True)
    run = tmp_path / "run"
    trained = capsnet(
        "train", "--data", f"npz:{file}", *SMALL, "--steps", "150", "--lr", "0.01", "--out", run
    )
    assert trained.code == 0, trained.err
    assert "exact-match error" in trained.out
    measured = capsnet("evaluate", run, "--json", "--device", "cpu")
    assert json.loads(measured.out)["balanced_accuracy"] > 0.9
    page = (run / "report" / "index.html").read_text()
    assert "specificity" in page
    assert "balanced accuracy" in page


def test_imbalance_is_noted_and_class_weights_answer_it(tmp_path: Path, capsnet: Command) -> None:
    labels = np.repeat([0, 1], [40, 4])
    images = bars(np.eye(2, dtype=bool)[labels])
    file = tmp_path / "rare.npz"
    write_npz(
        file, {"train_images": images, "train_labels": labels, "test_images": images, "test_labels": labels}
    )
    first = capsnet("train", "--data", f"npz:{file}", *SMALL, "--no-report", "--out", tmp_path / "a")
    assert "the classes are imbalanced: 40 of '0' and 4 of '1'" in first.err
    assert "balanced accuracy" in first.out
    weighted = ("--class-weights", "balanced", "--no-report", "--out", tmp_path / "b")
    second = capsnet("train", "--data", f"npz:{file}", *SMALL, *weighted)
    assert second.code == 0
    assert "imbalanced" not in second.err
    wrong = capsnet("train", "--data", f"npz:{file}", *SMALL, "--class-weights", "0.5")
    assert wrong.code == 2
    assert "class_weights" in wrong.err


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros(3)}, "has no train_images; it must hold train_images, train_labels, test_images"),
        (
            {"train_images": np.zeros((4, 8, 8), np.uint8), "train_labels": np.zeros(3, int)},
            "4 train images and 3",
        ),
        ({"train_images": np.zeros((4, 8, 8), np.uint8), "train_labels": np.zeros(4, int)}, "one class only"),
        ({"train_images": np.zeros((4, 8), np.uint8), "train_labels": np.arange(4)}, "have shape"),
        (
            {"train_images": np.zeros((4, 8, 8), np.uint8), "train_labels": np.array([0, 1, np.nan, 1])},
            "train_labels must be whole numbers",
        ),
        (
            {
                **{f"{part}_images": np.zeros((4, 8, 8), np.uint8) for part in ("train", "test")},
                "train_labels": np.arange(4) % 2,
                "test_labels": np.arange(4) % 3,
            },
            "class 2 has test images and no training images",
        ),
        (
            {
                "train_images": np.zeros((4, 8, 8), np.uint8),
                "train_labels": np.arange(4),
                "val_images": np.zeros(1),
            },
            "val_images and no val_labels",
        ),
        (
            {"train_images": np.zeros((4, 8, 8), np.uint8), "train_labels": np.full((4, 2), 7)},
            "must be 0 and 1",
        ),
    ],
)
def test_a_wrong_archive_is_refused_in_one_line(
    tmp_path: Path, capsnet: Command, arrays: dict[str, np.ndarray], message: str
) -> None:
    write_npz(tmp_path / "wrong.npz", arrays)
    outcome = capsnet("train", "--data", f"npz:{tmp_path / 'wrong.npz'}")
    assert outcome.code == 2
    assert message in outcome.err
    assert outcome.err.count("\n") == 1


@pytest.mark.parametrize(
    ("part", "labels", "message"),
    [
        ("test", np.eye(3)[np.arange(20) % 3], "the labels of the parts have different shapes: train (30,)"),
        (
            "train",
            np.where(np.arange(30) == 7, np.inf, np.arange(30) % 3),
            "train_labels must be whole numbers",
        ),
    ],
)
def test_labels_that_are_not_class_numbers_are_refused(
    tmp_path: Path, part: str, labels: np.ndarray, message: str
) -> None:
    file = medmnist(tmp_path / "mine.npz")
    with np.load(file) as arrays:
        changed = {**arrays, f"{part}_labels": labels}
    write_npz(file, changed)
    with pytest.raises(CapsnetError) as error:
        load(f"npz:{file}")
    assert message in str(error.value)


@pytest.mark.parametrize("kind", [bool, np.float32, np.int64])
def test_labels_of_any_number_type_are_named_alike(kind: type) -> None:
    labels = (np.arange(20) % 2).astype(kind)
    made_of = from_parts("mine", {"train": (bars(np.eye(2)[np.arange(20) % 2]), labels)}, None)
    assert made_of.class_names == ("0", "1")


def test_compare_knows_changed_archives_and_shows_several_classes_to_every_model(tmp_path: Path) -> None:
    before, again, after = (load(f"npz:{medmnist(tmp_path / 'mine.npz', several=True)}") for _ in range(3))
    assert fingerprint(before) == fingerprint(before) is not None
    assert fingerprint(again) != fingerprint(after)
    ours, *theirs = comparison(before, fingerprint(before)).variants("quick")
    assert ours.model.decoder is None
    assert all(variant.model.output == "sigmoid" for variant in theirs)


def test_networks_that_choose_between_classes_refuse_several(tmp_path: Path) -> None:
    dataset = load(f"npz:{medmnist(tmp_path / 'mine.npz', several=True)}")
    for name in ("inverted-attention", "variational-bayes"):
        with pytest.raises(CapsnetError, match=f"any number of classes, and {name} chooses"):
            MODELS.get(name).config_class.for_dataset(dataset)


def test_a_missing_archive_is_named(tmp_path: Path) -> None:
    with pytest.raises(CapsnetError, match="there is no such file"):
        load(f"npz:{tmp_path / 'no.npz'}")
    with pytest.raises(CapsnetError, match="npz: needs a path"):
        load("npz:")


def png(array: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(array).save(content, "PNG")
    return content.getvalue()


@pytest.fixture
def datasets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    module = pytest.importorskip("datasets", reason="pip install 'capsnet[datasets]'")
    monkeypatch.setattr(module.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return module


def made(datasets, size: int, column: str = "image", label: str = "label"):
    labels = np.arange(size) % 3
    features = datasets.Features(
        {column: datasets.Image(), label: datasets.ClassLabel(names=["top", "mid", "low"])}
    )
    pictures = [{"bytes": png(image), "path": None} for image in bars(np.eye(3, dtype=bool)[labels])]
    return datasets.Dataset.from_dict({column: pictures, label: labels.tolist()}, features=features)


def test_a_saved_data_set_keeps_its_splits_and_names(datasets: Any, tmp_path: Path) -> None:
    parts = {"train": made(datasets, 30), "validation": made(datasets, 10), "test": made(datasets, 20)}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "saved")
    dataset = load(f"hf:{tmp_path / 'saved'}")
    assert [len(part) for part in (dataset.train, dataset.validation, dataset.test)] == [30, 10, 20]
    assert dataset.class_names == ("top", "mid", "low")
    assert dataset.image_shape == (1, 20, 20)
    assert isinstance(dataset.test, Examples)
    first = np.asarray(parts["test"][0]["image"])
    assert (dataset.test.images[0, 0].numpy() == first).all()
    assert dataset.test.labels.tolist() == parts["test"]["label"]
    assert load(f"hf:{tmp_path / 'saved'}", image_size=10).image_shape == (1, 10, 10)


def test_columns_and_splits_can_be_named(datasets: Any, tmp_path: Path) -> None:
    parts = {"day1": made(datasets, 30, "scan", "finding"), "day2": made(datasets, 10, "scan", "finding")}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "saved")
    with pytest.raises(
        CapsnetError, match=r"has no split 'train'; it has day1, day2; choose one with \?train=NAME"
    ):
        load(f"hf:{tmp_path / 'saved'}")
    named = load(f"hf:{tmp_path / 'saved'}?train=day1&test=day2&label=finding")
    assert (len(named.train), len(named.test)) == (30, 10)
    with pytest.raises(CapsnetError, match=r"no option 'lable'; .*did you mean 'label'"):
        load(f"hf:{tmp_path / 'saved'}?lable=x")
    with pytest.raises(CapsnetError, match="column 'finding' has no images"):
        load(f"hf:{tmp_path / 'saved'}?train=day1&image=finding")


def test_a_folder_of_files_is_trained_on(datasets: Any, tmp_path: Path, capsnet: Command) -> None:
    for number, image in enumerate(bars(np.eye(3, dtype=bool)[np.arange(30) % 3])):
        file = tmp_path / "photos" / ("train", "test")[number >= 24] / "abc"[number % 3] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file)
    address = f"hf:{tmp_path / 'photos'}"
    outcome = capsnet("train", "--data", address, *SMALL, "--no-report", "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    assert "24 images for training; 6 images for test" in outcome.err
    assert capsnet("evaluate", tmp_path / "run", "--device", "cpu").code == 0


def test_lists_of_classes_are_any_number_of_classes(datasets: Any, tmp_path: Path) -> None:
    names = datasets.ClassLabel(names=["a", "b", "c"])
    features = datasets.Features({"image": datasets.Image(), "labels": datasets.List(names)})
    pictures = [{"bytes": png(image), "path": None} for image in bars(np.zeros((10, 3), bool))]
    labels = [[0, 2], [], [1]] * 3 + [[2]]
    datasets.Dataset.from_dict({"image": pictures, "labels": labels}, features=features).save_to_disk(
        tmp_path / "s"
    )
    dataset = load(f"hf:{tmp_path / 's'}")
    assert dataset.is_multi_label
    assert isinstance(dataset.train, MultiLabel)
    assert isinstance(dataset.test, MultiLabel)
    assert torch.cat([dataset.train.present, dataset.test.present]).sum(dim=0).tolist() == [3, 3, 4]


def test_what_is_no_image_data_set_is_refused_in_one_line(
    datasets: Any, tmp_path: Path, capsnet: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError("Couldn't reach the Hub\nfor many reasons")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    datasets.Dataset.from_dict({"text": ["a"], "label": [0]}).save_to_disk(tmp_path / "text")
    for place, message in (
        (tmp_path / "text", "images are in none of them"),
        ("nothing/there", "cannot be loaded (ConnectionError: Couldn't reach the Hub); check the name"),
    ):
        outcome = capsnet("train", "--data", f"hf:{place}")
        assert outcome.code == 2
        assert message in outcome.err
        assert outcome.err.count("\n") == 1
