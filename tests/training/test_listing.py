"""Runs in notebooks and lists."""

import json
from pathlib import Path

import pytest
import torch

import capsnet as package
from capsnet import CapsNet, CapsuleLayer
from capsnet.cli.options import complete_runs
from command import Command
from stripes import DATA, SMALL


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work") / "runs" / "one"
    package.train(CapsNet(SMALL), DATA, out=folder, steps=20, batch_size=16, device="cpu")
    return folder


def test_runs_are_listed_with_their_errors(finished: Path, stopped_run: Path, capsnet: Command) -> None:
    result = json.loads((finished / "result.json").read_text())
    listed = capsnet("runs", finished.parent)
    assert f"{result['test_error']:.2%} (" in listed.out
    assert "n = 60" in listed.out
    (found,) = json.loads(capsnet("runs", finished.parent, "--json").out)
    assert found["interval_95"] == result["interval_95"]
    assert found["finished"] is True
    assert "not finished" in capsnet("runs", stopped_run.parent).out
    absent = capsnet("runs", finished / "nowhere")
    assert (absent.code, "there is no such folder" in absent.err) == (2, True)


def test_a_damaged_run_is_listed_with_the_problem(tmp_path: Path, capsnet: Command) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    listed = capsnet("runs", tmp_path)
    assert listed.code == 0
    assert "cannot be read as JSON" in listed.out


def test_a_notebook_shows_a_run_and_a_trace(finished: Path) -> None:
    shown = package.Run(finished)._repr_html_()
    assert "<svg" in shown
    assert "n = 60" in shown
    trace = CapsNet(SMALL).trace(torch.rand(2, 1, 18, 18))
    html = trace._repr_html_()
    assert html == trace.routing._repr_html_()
    longest = float(trace.lengths[0].max())
    assert f"{longest:.3f}" in html
    assert html.count("<tr>") == 1 + SMALL.num_classes
    assert "<script" not in shown + html


def test_the_table_of_a_trace_shows_activations_where_a_routing_has_them() -> None:
    layer = CapsuleLayer(6, 4, 3, 4, routing="em")
    trace = layer.trace(torch.rand(1, 6, 4))
    assert trace.activations is not None
    html = trace._repr_html_()
    assert all(f"{float(activation):.3f}, c̄" in html for activation in trace.activations[-1, 0].detach())


def test_training_shows_a_bar(capsys: pytest.CaptureFixture[str]) -> None:
    package.train(CapsNet(SMALL), DATA, steps=20, batch_size=16, device="cpu", progress=True)
    printed = capsys.readouterr()
    assert "20/20" in printed.err
    assert "images/s" in printed.err


def test_the_shell_completes_runs_and_shipped_models(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(finished.parents[1])
    assert complete_runs("") == ["capsnet-mnist", "cnn-mnist", "efficient-capsnet-mnist", "runs/one"]
    assert complete_runs("runs") == ["runs/one"]
