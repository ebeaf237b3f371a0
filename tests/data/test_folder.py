"""Images of the user's own: a directory per class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from capsnet._support.errors import CapsnetError
from capsnet.data import Dataset, Examples, load
from capsnet.data.folder_split import find_layout


def write(path: Path, value: int = 0, size: tuple[int, int] = (8, 6), mode: str = "L") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode == "L" else (value, 0, 255)).save(path)
    return path


def folder(root: Path, counts: dict[str, int]) -> Path:
    for label, (name, count) in enumerate(counts.items()):
        for i in range(count):
            write(root / name / f"{i:03}.png", 50 * label + i)
    return root


def parts(dataset: Dataset) -> tuple[Examples, Examples]:
    assert isinstance(dataset.train, Examples)
    assert isinstance(dataset.test, Examples)
    return dataset.train, dataset.test


def test_folder_is_split_in_the_same_way_every_time(tmp_path: Path) -> None:
    folder(tmp_path, {"b": 10, "a": 20, "c": 2})
    dataset = load(f"folder:{tmp_path}")
    train, test = parts(dataset)
    assert dataset.class_names == ("a", "b", "c")
    assert dataset.image_shape == (1, 6, 8)
    assert train.labels.tolist() == sorted(train.labels.tolist())
    assert all(torch.bincount(half.labels, minlength=3).min() >= 1 for half in (train, test))
    seen = torch.cat((train.images, test.images))[:, 0, 0, 0].tolist()
    assert sorted(seen) == sorted([*range(10), *range(50, 70), 100, 101]), "each image once"
    again, _ = parts(load(f"folder:{tmp_path}"))
    assert torch.equal(again.images, train.images)
    assert "32 images of 3 classes" in dataset.provenance


def test_about_a_fifth_is_held_out_and_stays_so_when_files_are_added(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        for number in range(1000):
            (tmp_path / name / f"{number}.png").touch()
    before = {half: set(find_layout(tmp_path).files(half)) for half in ("train", "test")}
    assert 320 <= len(before["test"]) <= 480  # five standard deviations
    assert not before["train"] & before["test"]
    for number in range(300):
        (tmp_path / "a" / f"{number} again.png").touch()
        (tmp_path / "b" / f"{number}.png").unlink()
    (tmp_path / "another class").mkdir()
    for number in range(9):
        (tmp_path / "another class" / f"{number}.png").touch()
    after = {half: {file for file, _ in find_layout(tmp_path).files(half)} for half in ("train", "test")}
    assert not {file for file, _ in before["train"]} & after["test"], "trained on before, tested on now"
    assert not {file for file, _ in before["test"]} & after["train"]
    assert len(after["train"]) + len(after["test"]) == 2000 + 9


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_small_classes_have_training_and_test_images(tmp_path: Path, count: int) -> None:
    for name in range(40):
        (tmp_path / str(name)).mkdir()
        for number in range(count):
            (tmp_path / str(name) / f"{number}.png").touch()
    layout = find_layout(tmp_path)
    for half in ("train", "test"):
        assert {label for _, label in layout.files(half)} == set(range(40))


def test_train_and_test_directories(tmp_path: Path) -> None:
    folder(tmp_path / "train", {"x": 3, "y": 4})
    folder(tmp_path / "test", {"x": 1, "y": 2})
    train, test = parts(load(f"folder:{tmp_path}"))
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert test.labels.tolist() == [0, 1, 1]
    folder(tmp_path / "test", {"z": 1})
    with pytest.raises(CapsnetError, match="class z is only in one of train/ and test/"):
        load(f"folder:{tmp_path}")
    (tmp_path / "validation").mkdir()
    with pytest.raises(CapsnetError, match="validation: unexpected beside train/ and test/"):
        load(f"folder:{tmp_path}")


def test_size_is_the_first_images_or_the_one_asked_for(tmp_path: Path) -> None:
    folder(tmp_path, {"a": 2, "b": 2})
    write(tmp_path / "b" / "large.png", size=(100, 90))
    dataset = load(f"folder:{tmp_path}")
    assert dataset.image_shape == (1, 6, 8)
    assert "resized to 8×6" in dataset.provenance
    assert load(f"folder:{tmp_path}", image_size=12).image_shape == (1, 12, 12)


def test_one_colour_image_makes_the_set_colour(tmp_path: Path) -> None:
    folder(tmp_path, {"a": 2, "b": 2})
    write(tmp_path / "b" / "colour.png", mode="RGB")
    assert load(f"folder:{tmp_path}").image_shape == (3, 6, 8)


def test_hidden_files_and_stray_ones_are_ignored(tmp_path: Path) -> None:
    folder(tmp_path, {"a": 5, "b": 5, ".git": 3})
    (tmp_path / "a" / ".DS_Store").write_bytes(b"x")
    (tmp_path / "README.txt").write_text("mine")
    dataset = load(f"folder:{tmp_path}")
    assert dataset.class_names == ("a", "b")
    assert len(dataset.train) + len(dataset.test) == 10


@pytest.mark.parametrize("what", ["file", "class"])
def test_links_out_of_the_folder_are_refused(tmp_path: Path, what: str) -> None:
    root = folder(tmp_path / "mine", {"a": 3, "b": 3})
    outside = folder(tmp_path / "secret", {"c": 3}) / "c"
    link = root / "a" / "link.png" if what == "file" else root / "c"
    link.symlink_to(outside / "000.png" if what == "file" else outside)
    with pytest.raises(CapsnetError, match="a link to outside"):
        load(f"folder:{root}")


def test_links_within_the_folder_and_to_the_folder_are_fine(tmp_path: Path) -> None:
    root = folder(tmp_path / "mine", {"a": 3, "b": 3})
    (root / "a" / "again.png").symlink_to(root / "a" / "000.png")
    (tmp_path / "link").symlink_to(root)
    dataset = load(f"folder:{tmp_path / 'link'}")
    assert len(dataset.train) + len(dataset.test) == 7


def test_names_with_line_breaks_are_shown_escaped(tmp_path: Path) -> None:
    folder(tmp_path, {"a": 3, "b\nc": 3})
    assert load(f"folder:{tmp_path}").class_names == ("a", "b\\nc")
    (tmp_path / "b\nc" / "bad\n.png").write_bytes(b"")
    with pytest.raises(CapsnetError, match="is empty") as caught:
        load(f"folder:{tmp_path}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({}, "at least two classes are needed, found none"),
        ({"a": 3}, "found only a; it must hold one directory of images per class"),
        ({"a": 3, "b": 1}, "b: has one image; it needs at least two"),
    ],
)
def test_too_few_images_or_classes_are_refused(tmp_path: Path, counts: dict[str, int], message: str) -> None:
    folder(tmp_path, counts)
    with pytest.raises(CapsnetError, match=message):
        load(f"folder:{tmp_path}")


def test_empty_nested_and_missing_class_folders_are_refused(tmp_path: Path) -> None:
    folder(tmp_path, {"a": 3, "b": 3})
    (tmp_path / "empty").mkdir()
    with pytest.raises(CapsnetError, match="empty: has no images; add some, or delete the directory"):
        load(f"folder:{tmp_path}")
    folder(tmp_path / "empty", {"deeper": 2})
    with pytest.raises(CapsnetError, match="deeper: a directory inside a class"):
        load(f"folder:{tmp_path}")
    with pytest.raises(CapsnetError, match="nowhere: not a directory"):
        load(f"folder:{tmp_path / 'nowhere'}")


def test_a_set_too_large_for_memory_is_refused_before_it_is_read(tmp_path: Path) -> None:
    folder(tmp_path, {"a": 3, "b": 3})
    with pytest.raises(
        CapsnetError, match=r"6 images of 60000×60000 pixels need more than 8 GiB; give a smaller"
    ):
        load(f"folder:{tmp_path}", image_size=60_000)


def test_a_file_that_is_no_image_names_itself(tmp_path: Path) -> None:
    folder(tmp_path, {"a": 3, "b": 3})
    (tmp_path / "b" / "labels.csv").write_text("1,2")
    with pytest.raises(CapsnetError, match=r"b/labels.csv: not an image .* remove it from the folder"):
        load(f"folder:{tmp_path}")


def test_pixels_arrive_at_their_label(tmp_path: Path) -> None:
    folder(tmp_path, {"a": 5, "b": 5})
    train, test = parts(load(f"folder:{tmp_path}"))
    for part in (train, test):
        assert np.array_equal(part.images[:, 0, 0, 0].numpy() >= 50, part.labels.numpy() == 1)
