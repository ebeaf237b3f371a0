"""`capsnet push`, and hf:owner/name in place of a run, against a local stand-in for the hub."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from huggingface_hub import constants
from PIL import Image

import capsnet as package
from capsnet import CapsNet
from capsnet.data import Examples
from capsnet.data.npz import write_npz
from command import Command
from hub_stand_in import TOKEN, Hub, running
from stripes import DATA, SMALL


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on a folder whose path must stay private."""
    folder = tmp_path_factory.mktemp("hub") / "run"
    own = replace(
        DATA, name="folder:/home/me/secret/stripes", provenance="60 images from /home/me/secret/stripes."
    )
    model = CapsNet(replace(SMALL, class_names=DATA.class_names))
    package.train(model, own, out=folder, steps=10, batch_size=16, device="cpu")
    return folder


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """The stand-in, in place of the hub for this process: HF_ENDPOINT is read when the library is imported."""
    with running() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.address)
        template = server.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server


def test_a_run_is_pushed_with_its_card_and_used_from_the_hub(
    run: Path, hub: Hub, tmp_path: Path, capsnet: Command
) -> None:
    pushed = capsnet("push", run, "me/digits")
    assert (pushed.code, pushed.out.strip()) == (0, f"{hub.address}/me/digits"), pushed.err
    assert hub.files["model.safetensors"] == (run / "model.safetensors").read_bytes()
    card = hub.files["README.md"].decode()
    result = json.loads((run / "result.json").read_text())
    low, high = result["interval_95"]
    for text in (
        f"**{result['test_error']:.2%}** of 60 test images",
        f"95 % interval {low:.2%} to {high:.2%}",
        "top, middle, bottom",
        "60 images from stripes",
        "10 steps",
        "## Limits",
        'capsnet.load_model("hf:me/digits")',
    ):
        assert text in card
    assert yaml.safe_load(card.split("---")[1])["library_name"] == "capsnet"
    assert not any(b"secret" in content for content in hub.files.values())

    assert isinstance(DATA.test, Examples)
    Image.fromarray(DATA.test.images[0, 0].numpy()).save(tmp_path / "1.png")
    own, theirs = (
        capsnet("predict", where, tmp_path / "1.png", "--device", "cpu") for where in (run, "hf:me/digits")
    )
    assert own.code == theirs.code == 0
    assert own.out == theirs.out


def test_every_command_takes_a_run_from_the_hub(
    run: Path, hub: Hub, tmp_path: Path, capsnet: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(DATA.test, Examples)
    arrays = {f"{part}_images": getattr(DATA, part).images[:, 0].numpy() for part in ("train", "test")}
    arrays |= {f"{part}_labels": getattr(DATA, part).labels.numpy() for part in ("train", "test")}
    write_npz(tmp_path / "mine.npz", {**arrays, "class_names": np.array(DATA.class_names)})
    Image.fromarray(DATA.test.images[0, 0].numpy()).save(tmp_path / "1.png")
    assert capsnet("push", run, "me/digits").code == 0
    monkeypatch.chdir(tmp_path)

    absent = capsnet("report", "hf:me/digits")  # the images of a run on own data are not on the hub
    assert absent.code == 2
    assert "error: stripes: not a directory" in absent.err
    assert "name them with --data" in absent.err
    report = capsnet("report", "hf:me/digits", "--data", "npz:mine.npz")
    assert report.code == 0, report.err
    error = json.loads((run / "result.json").read_text())["test_error"]
    assert (
        f"{error:.2%}" in (tmp_path / "runs" / "hub" / "me" / "digits" / "report" / "index.html").read_text()
    )

    for command in (
        ("evaluate", "hf:me/digits", "--data", "npz:mine.npz", "--device", "cpu"),
        ("trace", "hf:me/digits", "1.png", "--out", "trace.png"),
        ("perturb", "hf:me/digits", "1.png", "--out", "perturb.png"),
        ("info", "hf:me/digits"),
    ):
        outcome = capsnet(*command)
        assert outcome.code == 0, (command, outcome.err)
    assert all((tmp_path / name).stat().st_size for name in ("trace.png", "perturb.png"))


def test_a_download_goes_on_where_the_connection_was_lost(
    run: Path, hub: Hub, capsnet: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    assert capsnet("push", run, "me/digits").code == 0
    hub.drop_downloads = 1
    model = package.load_model("hf:me/digits")
    assert hub.drop_downloads == 0
    half = (run / "model.safetensors").stat().st_size // 2
    (resumed,) = hub.ranges
    assert half - 1000 <= int(resumed.removeprefix("bytes=").partition("-")[0]) <= half
    assert package.evaluate(model, DATA).errors == package.evaluate(package.load_model(run), DATA).errors


def test_a_push_whose_connection_is_lost_leaves_nothing_behind(
    run: Path, hub: Hub, capsnet: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.drop_commits = True
    lost = capsnet("push", run, "me/digits")
    assert lost.code == 2
    assert "no connection to the hub, or it was lost" in lost.err
    assert lost.err.count("\n") == 1
    assert hub.files == {}


def test_what_the_hub_refuses_is_one_line(
    run: Path, hub: Hub, capsnet: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = capsnet("evaluate", "hf:me/nothing")
    assert (absent.code, absent.err.count("\n")) == (2, 1)
    assert "the hub has no such model, or it is private" in absent.err
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    refused = capsnet("push", run, "me/digits")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "the hub refuses the token (401)" in refused.err
    assert capsnet("push", run, "digits").err.count("write the model's name as owner/name") == 1
    assert capsnet("evaluate", "hf:digits").err.count("hf:owner/name") == 1


def test_the_endpoint_is_that_of_the_environment(run: Path) -> None:
    with running() as server:
        environment = {**os.environ, "HF_ENDPOINT": server.address, "HF_TOKEN": TOKEN}
        command = [sys.executable, "-m", "capsnet", "push", str(run), "me/digits"]
        subprocess.run(command, env=environment, check=True, capture_output=True, timeout=120)
        assert "README.md" in server.files
    gone = subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=120)
    assert gone.returncode == 2
    assert "no connection to the hub" in gone.stderr
