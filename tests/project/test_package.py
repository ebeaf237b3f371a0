"""What comes with the package: models, the explorer's page, types. Also run from an installed wheel (.ci/quick.py)."""

from __future__ import annotations

import importlib
import os
import pkgutil
import re
import socket
import subprocess
import sys
import sysconfig
import zipfile
from importlib.resources import files
from pathlib import Path

import pytest
import torch

import capsnet
from capsnet.models import load_model
from capsnet.models.saved import find_pretrained

PACKAGE = files("capsnet")
ROOT = Path(__file__).parents[2]
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(capsnet.__path__, "capsnet.")
    # It runs the program; and Triton's kernels need Triton, which only Linux has.
    if module.name
    not in ("capsnet.__main__", "capsnet.routing.cuda.kernels", "capsnet.routing.cuda.agree_kernels")
)

pytestmark = pytest.mark.quick


@pytest.mark.parametrize("name", ["capsnet-mnist", "cnn-mnist", "efficient-capsnet-mnist"])
def test_shipped_models_answer(name: str) -> None:
    folder = find_pretrained(name)
    assert str(folder).startswith(str(PACKAGE))
    with torch.no_grad():
        assert load_model(folder)(torch.rand(2, 1, 28, 28)).isfinite().all()


def test_every_file_of_the_page_is_there() -> None:
    static = PACKAGE / "explorer" / "static"
    wanted, seen = ["main.js"], set()
    page = (static / "index.html").read_text(encoding="utf-8")
    wanted += [name for name in re.findall(r'(?:src|href)="([^"#:]+)"', page) if "." in name]
    while wanted:
        name = wanted.pop()
        if name in seen:
            continue
        seen.add(name)
        content = (static / name).read_text(encoding="utf-8")
        folder = name.rpartition("/")[0]
        for found in re.findall(r'^import .* from "(\./|\.\./)([^"]+)"', content, re.MULTILINE):
            wanted.append(found[1] if found[0] == "../" or not folder else f"{folder}/{found[1]}")
    assert len(seen) > 20


def test_types_are_published() -> None:
    assert (PACKAGE / "py.typed").is_file()


@pytest.mark.skipif(os.environ.get("CAPSNET_TESTS_INSTALLED") != "1", reason="set by .ci/quick.py")
def test_what_is_tested_is_what_was_installed() -> None:
    assert Path(capsnet.__file__).is_relative_to(sysconfig.get_path("purelib"))
    assert not (ROOT / "src").exists()


@pytest.mark.parametrize("name", MODULES)
def test_every_module_can_be_imported(name: str) -> None:
    importlib.import_module(name)


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.mark.skipif(not (ROOT / "src").is_dir(), reason="built from a checkout")
def test_the_sdist_gives_the_same_wheel_as_the_checkout(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="no hatchling here: pip install hatchling")

    def build(source: Path, kind: str, out: Path) -> Path:
        command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(out)]
        subprocess.run(command, cwd=source, check=True, capture_output=True)
        (built,) = out.iterdir()
        return built

    sdist = build(ROOT, "sdist", tmp_path / "sdist")
    subprocess.run(["tar", "-xzf", sdist, "-C", tmp_path], check=True)
    unpacked = tmp_path / sdist.name.removesuffix(".tar.gz")
    from_sdist = contents(build(unpacked, "wheel", tmp_path / "from-sdist"))
    from_checkout = contents(build(ROOT, "wheel", tmp_path / "from-checkout"))
    assert from_sdist.keys() == from_checkout.keys()
    assert from_sdist == from_checkout
    for name in ("py.typed", "explorer/static/index.html", "pretrained/capsnet-mnist/model.safetensors"):
        assert f"capsnet/{name}" in from_checkout
    assert (unpacked / "LICENSE").is_file()


def test_the_tests_have_no_network() -> None:
    with socket.socket() as outside, pytest.raises(OSError, match="the tests have no network"):
        outside.connect(("192.0.2.1", 80))  # reserved for documentation
    with pytest.raises(socket.gaierror, match="the tests have no network"):
        socket.getaddrinfo("example.invalid", 80)
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()
