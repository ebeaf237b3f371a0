"""`capsnet export --site`: a folder that is written whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from capsnet._support.errors import CapsnetError
from capsnet.explorer.site import building, export_site, runtime
from capsnet.explorer.site.building import refuse_other_files, write_folder
from command import Command
from explorer_client import save


def test_a_folder_with_other_files_is_refused(tmp_path: Path, capsnet: Command) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    done = capsnet("export", "capsnet-mnist", "--site", tmp_path)
    assert done.code == 2
    assert "it holds other files (thesis.txt)" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_an_older_site_is_replaced_but_not_with_a_file_of_the_user_s(tmp_path: Path) -> None:
    folder = tmp_path / "site"
    mark = json.dumps({"files": ["a/b.txt", "site.json"]}).encode()
    write_folder(folder, {"a/b.txt": b"old", "site.json": mark})
    refuse_other_files(folder)
    write_folder(folder, {"new.txt": b"new"})
    assert [path.name for path in folder.iterdir()] == ["new.txt"]
    assert [path.name for path in tmp_path.iterdir()] == ["site"]  # nothing is left beside it
    write_folder(folder, {"a/b.txt": b"old", "site.json": mark, "mine.txt": b"mine"})
    with pytest.raises(CapsnetError, match=r"other files \(mine.txt\)"):
        refuse_other_files(folder)


def test_a_model_that_cannot_be_traced_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "runtime_files", lambda _: {building.BINARY: b""})
    with pytest.raises(CapsnetError, match="has no routing to trace"):
        export_site("cnn-mnist", tmp_path / "site")
    run = save(tmp_path / "run")

    def to_onnx(*_: object) -> None:
        raise RuntimeError("a loop of unknown length")

    monkeypatch.setattr("capsnet.explorer.site.exported.to_onnx", to_onnx)
    with pytest.raises(
        CapsnetError, match=r"run cannot be exported: trace of this model cannot be traced \(a loop of"
    ):
        export_site(str(run), tmp_path / "site")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_another_package_than_the_runtime_is_refused(tmp_path: Path, capsnet: Command) -> None:
    (tmp_path / "package.tgz").write_bytes(b"other")
    done = capsnet(
        "export", "capsnet-mnist", "--site", tmp_path / "site", "--runtime", tmp_path / "package.tgz"
    )
    assert done.code == 2
    assert f"is not onnxruntime-web {runtime.VERSION}: its hash differs" in done.err
    assert not (tmp_path / "site").exists()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((), "either FILE.onnx, FILE.pt2 or --site DIR"),
        (("a.onnx", "--site", "b"), "either FILE.onnx, FILE.pt2 or --site DIR"),
        (("a.onnx", "--float32"), "--float32 goes with --site"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    capsnet: Command, arguments: tuple[str, ...], reason: str
) -> None:
    done = capsnet("export", "capsnet-mnist", *arguments)
    assert done.code == 2
    assert reason in done.err
