"""What docs/extending.md and docs/own-routing.md promise: a package adds a model, data, an experiment, a routing."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

from capsnet.data.registry import DATASETS
from capsnet.experiments.registry import _EXPERIMENTS
from capsnet.explorer.answering import answer
from capsnet.explorer.schemas import TraceRequest, TraceResponse
from capsnet.explorer.session import open_session
from capsnet.layers import CapsuleLayer
from capsnet.models import MODELS, load_model
from capsnet.routing import ROUTINGS
from command import Command
from explorer_client import unpack

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page: str, language: str) -> list[str]:
    """The code of a page of the docs."""
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)


def package_of(page: str) -> tuple[dict[str, str], str]:
    """The files and the entry points that a page describes."""
    named = (re.match(r"# my_package/(\w+)\.py\n", block) for block in blocks(page, "python"))
    files = {match[1]: block for match, block in zip(named, blocks(page, "python"), strict=True) if match}
    lines = blocks(page, "toml")[0].splitlines()
    points = [re.sub(r'\[project\.entry-points\."(.*)"\]', r"[\1]", line).replace('"', "") for line in lines]
    return files, "\n".join(points)


FILES, ENTRY_POINTS = package_of("extending.md")
Install = Callable[[Path], None]


def install(folder: Path, files: dict[str, str], entry_points: str) -> None:
    """Put a package and its metadata into a folder, as pip does."""
    package, about = folder / "my_package", folder / "my_package-1.0.dist-info"
    package.mkdir()
    about.mkdir()
    (package / "__init__.py").touch()
    for name, source in files.items():
        (package / f"{name}.py").write_text(source, encoding="utf-8")
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(entry_points)


@pytest.fixture
def registries() -> Iterator[None]:
    """Forget what a test registered."""
    kept = [(registry, dict(registry._things)) for registry in (MODELS, DATASETS, _EXPERIMENTS, ROUTINGS)]
    for registry, _ in kept:
        vars(registry).pop("_plugins", None)
    yield
    for registry, things in kept:
        registry._things.clear()
        registry._things.update(things)
        vars(registry).pop("_plugins", None)
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_package"]:
        del sys.modules[name]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registries: None) -> Path:
    """The package that the page describes, installed."""
    folder = tmp_path / "site"
    folder.mkdir()
    install(folder, FILES, ENTRY_POINTS)
    monkeypatch.syspath_prepend(str(folder))
    return folder


def test_the_page_has_a_file_for_every_entry_point() -> None:
    assert set(FILES) == set(re.findall(r"my_package\.(\w+)", ENTRY_POINTS))


def test_a_model_and_a_data_set_from_outside_go_through_every_command(
    package: Path, tmp_path: Path, capsnet: Command
) -> None:
    run = tmp_path / "run"
    assert "noise" in capsnet("data").out
    done = capsnet(
        *("train", "--model", "linear", "--data", "noise", "--epochs", "3", "--out", run, "--device", "cpu"),
        *("--set", "model.dropout=0.25"),
    )
    assert done.code == 0, done.err
    assert json.loads((run / "config.json").read_text())["model"]["dropout"] == 0.25
    assert json.loads(capsnet("info", run, "--json").out)["parameters"] == 784 * 2 + 2
    assert json.loads((run / "config.json").read_text())["model"]["class_names"] == ["dark", "light"]
    assert "0.00%" in capsnet("evaluate", run, "--device", "cpu").out
    assert (run / "report" / "index.html").exists()
    (run / "report" / "index.html").unlink()
    assert capsnet("report", run).code == 0
    assert (run / "report" / "index.html").exists()
    assert capsnet("export", run, tmp_path / "linear.onnx").code == 0
    session = onnxruntime.InferenceSession(tmp_path / "linear.onnx")
    assert session.run(None, {"images": torch.zeros(5, 1, 28, 28).numpy()})[0].shape == (5, 2)


def test_a_model_from_outside_is_compared_with_the_others(
    package: Path, tmp_path: Path, capsnet: Command
) -> None:
    done = capsnet(
        "compare", "--data", "noise", "--models", "capsnet,linear", "--scale", "smoke", "--seeds", "2",
        "--learning-rate", "0.01", "--out", tmp_path / "results", "--device", "cpu",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "linear" in done.out
    assert (tmp_path / "results" / "compare-noise" / "linear-smoke-s1.json").exists()


def test_an_experiment_from_outside_is_listed_and_run(
    package: Path, tmp_path: Path, capsnet: Command
) -> None:
    assert "linear-or-not" in capsnet("reproduce", "--list").out
    done = capsnet(
        "reproduce", "linear-or-not", "--scale", "smoke", "--seeds", "1",
        "--out", tmp_path / "results", "--work", tmp_path / "work", "--device", "cpu",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert len(list((tmp_path / "results" / "linear-or-not").glob("*-smoke-s0.json"))) == 2


def test_a_routing_from_outside_is_found_by_name(package: Path) -> None:
    layer = CapsuleLayer(6, 4, 3, 5, routing="mean")
    assert layer(torch.rand(2, 6, 4)).shape == (2, 3, 5)


def test_a_routing_of_ones_own_is_trained_compared_and_looked_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registries: None, capsnet: Command
) -> None:
    (tmp_path / "site").mkdir()
    install(tmp_path / "site", *package_of("own-routing.md"))
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    run, digit = tmp_path / "run", tmp_path / "digit.png"
    small = ("--stem-channels", "4", "--primary-types", "2", "--set", "model.decoder=8")
    done = capsnet(
        *("train", "--set", "model.routing=soft-kmeans", *small, "--steps", "2", "--out", run),
        *("--no-report", "--device", "cpu"),
    )
    assert done.code == 0, done.err
    Image.new("L", (28, 28)).save(digit)
    shown = json.loads(capsnet("trace", run, digit, "--json").out)
    assert len(shown["iterations"]) == 3
    compared = capsnet(
        *("compare", "--models", "capsnet,kmeans-capsnet", "--scale", "smoke", "--seeds", "1"),
        *("--learning-rate", "0.01", "--out", tmp_path / "results", "--device", "cpu"),
    )
    assert compared.code == 0, compared.err
    assert "kmeans-capsnet" in compared.out
    session = open_session(str(run))
    asked = TraceRequest.model_validate({"layers": [{"pixels": [0.5] * 784, "transform": {}}]})
    explored = answer(session, "trace", asked, TraceResponse)
    lengths = load_model(str(run)).scores(torch.full((1, 1, 28, 28), 0.5))[0]
    assert np.allclose(unpack(explored.lengths.model_dump()), lengths.detach(), atol=1e-5)
    exec(blocks("own-routing.md", "python")[1], {})  # the page's own check of the gradients


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("import nothing_of_this_name", ("my_package.broken", "ModuleNotFoundError", "repair or uninstall")),
        (
            "from capsnet.models import register\n@register('broken')\nclass Broken: pass",
            ("'broken'", "lacks config_class"),
        ),
        ("", ("my_package.broken", "does not register 'broken'")),
        (
            "from capsnet.models import CNN, register\n@register('cnn')\nclass Mine(CNN): pass",
            ("'cnn' is taken by capsnet.models.cnn.CNN",),
        ),
    ],
)
def test_a_broken_plug_in_is_one_line(
    source: str,
    words: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    registries: None,
    capsnet: Command,
) -> None:
    folder = tmp_path / "site"
    folder.mkdir()
    install(folder, {"broken": source}, "[capsnet.models]\nbroken = my_package.broken\n")
    monkeypatch.syspath_prepend(str(folder))
    done = capsnet("train", "--model", "broken", "--out", tmp_path / "run", "--device", "cpu")
    assert done.code == 2
    assert done.err.count("\n") == 1
    for word in words:
        assert word in done.err
    assert not (tmp_path / "run").exists()


def test_an_unknown_model_is_one_line_with_the_nearest_name(tmp_path: Path, capsnet: Command) -> None:
    done = capsnet("train", "--model", "capsnett", "--out", tmp_path / "run")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "there is no model 'capsnett'" in done.err
    assert "did you mean 'capsnet'?" in done.err


def test_options_of_another_model_are_refused(tmp_path: Path, capsnet: Command) -> None:
    done = capsnet("train", "--model", "cnn", "--iterations", "2", "--out", tmp_path / "run")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "--iterations is not an option of the model 'cnn'" in done.err


def test_help_does_not_import_plug_ins(package: Path) -> None:
    (package / "my_package" / "linear.py").write_text("raise SystemExit('imported')")
    code = f"import sys; sys.path.insert(0, {str(package)!r}); sys.argv = ['capsnet', '--help']\n"
    done = subprocess.run(
        [sys.executable, "-c", code + "from capsnet.cli import main; main()"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
