"""Fixtures shared by all tests."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest

from command import Command, Outcome, run

# Before PyTorch is imported: on networks this small, threads that wait for each other cost more than they help.
os.environ.setdefault("OMP_NUM_THREADS", "1")
if os.environ.get("CAPSNET_CHECK_ANNOTATIONS") == "1":  # before anything of capsnet is imported
    from annotations_checked import install

    install()

    def pytest_configure(config: pytest.Config) -> None:
        """Beartype looks at items of containers by chance, also while Hypothesis builds examples."""
        config.addinivalue_line("filterwarnings", "ignore:Do not use the .random. module inside strategies")


def forget_old_kernels() -> None:
    """Numba compiles anew when a kernel's own file has changed, but not when one has whose functions it calls."""
    sources = Path(__file__).parents[1] / "src" / "capsnet" / "routing" / "cpu"
    newest = max((file.stat().st_mtime for file in sources.glob("*.py")), default=0.0)
    for file in sources.glob("__pycache__/*.nb[ci]"):
        with suppress(FileNotFoundError):  # another test process does the same
            if file.stat().st_mtime < newest:
                file.unlink()


if "PYTEST_XDIST_WORKER" not in os.environ:
    forget_old_kernels()

SHARED = Path(__file__).parents[2] / "shared" / "data"
#: Directory of the unpacked files → what the unpacking script beside the packed ones calls the set.
PACKED = {"mnist": "mnist", "smallnorb48": "smallnorb", "cifar-10-batches-bin": "cifar10"}


def only_this_machine(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook: no test needs the network, so connections that leave this machine fail as if there were none.

    It sees what Python's sockets do in this process; `make test-wheel` shuts out the subprocesses too.
    """
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        address = arguments[1]
        if isinstance(address, tuple) and not _local(address[0]):
            raise OSError(errno.ENETUNREACH, "the tests have no network", str(address[0]))
    elif event == "socket.getaddrinfo" and not _local(arguments[0], names=False):
        raise socket.gaierror(socket.EAI_AGAIN, "the tests have no network")


def _local(host: str | bytes | None, names: bool = True) -> bool:
    """Whether a host is this machine; with `names` false, also any numeric address, which needs no name server."""
    text = host.decode() if isinstance(host, bytes) else host
    if not text or text in ("localhost", socket.gethostname()):
        return True
    try:
        return ipaddress.ip_address(text.partition("%")[0]).is_loopback or not names
    except ValueError:
        return False


sys.addaudithook(only_this_machine)


@pytest.fixture(scope="session")
def real_data(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`real_data("mnist")`: a DIR whose DIR/mnist holds the published files; skips where there is none."""
    unpacked: list[Path] = []

    def find(name: str) -> Path:
        local = os.environ.get("CAPSNET_DATA")
        if local and (Path(local) / name).is_dir():
            return Path(local)
        if not (SHARED / "unpack").is_file():
            pytest.skip(f"no {name}: CAPSNET_DATA does not hold it and there is no {SHARED}")
        if not unpacked:
            unpacked.append(tmp_path_factory.mktemp("real"))
        if not (unpacked[0] / name).is_dir():
            subprocess.run([sys.executable, SHARED / "unpack", unpacked[0], PACKED[name]], check=True)
        return unpacked[0]

    return find


@pytest.fixture(scope="session")
def _stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch

    from capsnet import CapsNet
    from capsnet.training.loop import Interrupted, train
    from capsnet.training.run import Run
    from stripes import CONFIG, DATA, SMALL, StopAt

    folder = tmp_path_factory.mktemp("stopped") / "run"
    torch.manual_seed(CONFIG.seed)
    model = CapsNet(SMALL)
    with Run.create(folder, model, CONFIG) as run, pytest.raises(Interrupted):
        train(model, DATA, CONFIG, run, device="cpu", progress=StopAt(20))
    return folder


@pytest.fixture
def stopped_run(_stopped: Path, tmp_path: Path) -> Path:
    """A copy of a small run of 30 steps that was stopped at step 21, with the save of step 20 before that."""
    return copytree(_stopped, tmp_path / "run")


@pytest.fixture(scope="session")
def whole_weights(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The weights of the same run if nothing happens to it."""
    from stripes import run_training

    folder = tmp_path_factory.mktemp("whole") / "run"
    run_training(folder)
    return (folder / "model.safetensors").read_bytes()


@pytest.fixture
def capsnet(capfd: pytest.CaptureFixture[str]) -> Command:
    """Run `capsnet ARGUMENTS` in this process: its exit code and what it printed."""

    def command(*arguments: object) -> Outcome:
        capfd.readouterr()
        code = run(*arguments)
        return Outcome(code, *capfd.readouterr())

    return command
