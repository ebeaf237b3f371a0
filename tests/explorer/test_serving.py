"""The command `capsnet explore`: how it starts, stays up under load, and ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest
from torture.launch import launch

from capsnet._support.errors import CapsnetError
from capsnet._support.sockets import listen
from capsnet.explorer import serve
from capsnet.explorer.session import Session
from capsnet.explorer.worker import Busy, Worker
from capsnet.models.cnn import CNN, CNNConfig
from explorer_client import SMALL, layer


def test_explore_refuses_what_it_cannot_show(tmp_path: Path) -> None:
    with pytest.raises(CapsnetError, match="no model at"):
        serve("no-such-run", port=0, open_browser=False)
    CNN(CNNConfig.max_pooling(SMALL)).save_pretrained(tmp_path / "cnn")
    with pytest.raises(CapsnetError, match="capsule networks"):
        serve(str(tmp_path / "cnn"), port=0, open_browser=False)
    with listen("127.0.0.1", 0) as taken, pytest.raises(CapsnetError, match="another --port"):
        serve(str(tmp_path / "cnn"), port=taken.getsockname()[1], open_browser=False)
    with pytest.raises(CapsnetError, match="65535"):
        serve(str(tmp_path / "cnn"), port=70000, open_browser=False)


@pytest.mark.parametrize("missing", ["uvicorn", "fastapi"])
def test_missing_extra_is_named(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.delitem(sys.modules, "capsnet.explorer.app")
    with pytest.raises(CapsnetError, match=rf"{missing}.*pip install 'capsnet\[explorer\]'"):
        serve("x", 0, False)


def test_200_requests_at_once_are_answered_and_memory_stays(client: httpx.Client, session: Session) -> None:
    body = {"layers": [layer(session, 0)]}

    def one(_: int) -> int:
        with httpx.Client(base_url=client.base_url, timeout=60, verify=False) as own:  # no TLS to set up
            return own.post("/api/trace", json=body).status_code

    def crowd() -> int:
        with ThreadPoolExecutor(200) as pool:
            assert set(pool.map(one, range(200))) == {200}
        return psutil.Process().memory_info().rss

    before = crowd()  # buffers of 200 connections are made once
    assert crowd() - before < 100 * 2**20
    assert client.post("/api/trace", json=body).status_code == 200


def test_disconnecting_clients_do_not_stop_the_server(
    address: str, client: httpx.Client, session: Session
) -> None:
    host, port = address.removeprefix("http://").split(":")
    body = json.dumps({"layers": [layer(session, 0)], "iterations": 10}).encode()
    lines = ("POST /api/trace HTTP/1.1", f"Host: {host}:{port}", "Content-Type: application/json")
    head = "\r\n".join((*lines, f"Content-Length: {len(body)}", "", ""))
    for sent in (
        head.encode() + body[: len(body) // 2],
        head.encode() + body,
        b"POST /api",
    ):
        for _ in range(20):
            with socket.create_connection((host, int(port)), timeout=10) as gone:
                gone.sendall(sent)
    assert (
        client.post("/api/trace", content=body, headers={"content-type": "application/json"}).status_code
        == 200
    )


def test_cancelled_work_is_never_done_and_a_full_queue_says_so() -> None:
    worker = Worker(waiting=2)
    started, release, done = threading.Event(), threading.Event(), []

    def hold() -> None:
        started.set()
        release.wait(20)

    holding = worker.submit(hold)
    assert started.wait(20)
    abandoned = worker.submit(lambda: done.append("abandoned"))
    wanted = worker.submit(lambda: done.append("wanted"))
    with pytest.raises(Busy, match="waiting"):
        worker.submit(lambda: None)
    assert abandoned.cancel()
    release.set()
    holding.result(20)
    wanted.result(20)
    assert done == ["wanted"]
    failing: Callable[[], float] = lambda: 1 / 0  # noqa: E731
    with pytest.raises(ZeroDivisionError):
        worker.submit(failing).result(20)
    worker.submit(lambda: done.append("after")).result(20)  # an error does not end the thread
    worker.close()
    with pytest.raises(Busy, match="closing"):
        worker.submit(lambda: None)


def test_the_command_prints_its_address_and_ends_on_interrupt(folder: Path, tmp_path: Path) -> None:
    explorer = launch(tmp_path / "log", "explore", folder, "--port", 0, "--no-browser")
    deadline = time.monotonic() + 60
    while not (tmp_path / "log").exists() or "\n" not in explorer.said:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    address = explorer.said.split()[1]
    assert "small" in httpx.get(f"{address}api/model", timeout=30, verify=False).text
    assert explorer.process.pid is not None
    os.kill(explorer.process.pid, signal.SIGINT)
    assert explorer.wait() == 0
    assert "Traceback" not in explorer.said
