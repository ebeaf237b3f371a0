"""Folders of images of any size, in order."""

import os
from pathlib import Path

import pytest

from capsnet.data import walking
from capsnet.data.walking import files_in
from capsnet.errors import CapsnetError


@pytest.mark.parametrize("at_once", [1, 3, 65_536])
def test_files_come_sorted_and_once_whatever_is_held_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(walking, "NAMES_AT_ONCE", at_once)
    for name in ("b.png", "a/2.png", "a/10.PNG", "a.png", "a/deep/1.jpg", "c.txt", "é.png", "B.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "linked").symlink_to(tmp_path / "a")
    (tmp_path / "linked.png").symlink_to(tmp_path / "b.png")
    found = [path.relative_to(tmp_path).as_posix() for path in files_in(tmp_path, {".png", ".jpg"})]
    expected = ["B.png", "a/10.PNG", "a/2.png", "a/deep/1.jpg", "a.png", "b.png", "linked.png", "é.png"]
    assert found == expected


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(CapsnetError, match="cannot be read"):
        list(files_in(tmp_path, {".png"}))
