"""`capsnet serve` as a process of its own: what clients get, and what it survives."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from capsnet import CapsNet, CapsNetConfig
from capsnet._support.errors import CapsnetError
from capsnet.inference.export import export_onnx
from capsnet.inference.serving.finding import onnx_of
from capsnet.inference.serving.model import OnnxModel

NAMES = ("cat", "dog", "owl")


@pytest.fixture(scope="module")
def model() -> CapsNet:
    torch.manual_seed(0)
    return CapsNet(
        CapsNetConfig(
            image_shape=(1, 20, 20), num_classes=3, stem_channels=8, primary_types=2, class_names=NAMES
        )
    ).eval()


@pytest.fixture(scope="module")
def onnx(model: CapsNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("served") / "small.onnx"
    export_onnx(model, path)
    return path


@contextmanager
def served(
    model: Path, *options: str, patch: str = "protocol.HEADER_SECONDS = 1.0"
) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    code = (
        f"import sys; from capsnet.inference.serving import protocol, worker; {patch}\n"
        "from capsnet.cli import main; sys.argv[0] = 'capsnet'\n"
        "try: main()\n"
        "finally: print('torch' in sys.modules, file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, "serve", model, "--port", "0", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            line = process.stderr.readline()
            if "exporting" in line:
                line = process.stderr.readline()
            assert "/predict" in line, line + process.stderr.read()
            yield line.split()[1].removesuffix("/predict"), process
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def server(onnx: Path) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    with served(onnx, "--timeout", "2") as found:
        yield found


@pytest.fixture
def client(server: tuple[str, object]) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server[0], timeout=60) as client:
        yield client


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def pictures(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 20, 20), np.uint8)


@pytest.mark.quick
def test_every_kind_of_body_gets_pytorchs_scores(client: httpx.Client, model: CapsNet) -> None:
    pixels = pictures(3)
    with torch.no_grad():
        wanted = model.scores(torch.from_numpy(pixels)[:, None] / 255).numpy()
    files = [png(picture) for picture in pixels]
    arrays = (pixels / 255).tolist()
    for answer in (
        client.post("/predict", json={"images": arrays}),
        client.post("/predict", json={"images": [[rows] for rows in arrays]}),
        client.post("/predict", json={"images": [base64.b64encode(file).decode() for file in files]}),
        client.post("/predict", files=[("file", (f"{i}.png", file)) for i, file in enumerate(files)]),
    ):
        assert answer.status_code == 200, answer.text
        found = answer.json()["predictions"]
        scores = np.array([list(one["scores"].values()) for one in found])
        np.testing.assert_allclose(scores, wanted, atol=1e-5)
        assert [one["label"] for one in found] == [NAMES[row.argmax()] for row in wanted]
        assert list(found[0]["scores"]) == list(NAMES)
    (one,) = client.post("/predict", content=files[0], headers={"content-type": "image/png"}).json()[
        "predictions"
    ]
    np.testing.assert_allclose(one["score"], wanted[0].max(), atol=1e-5)


def test_it_says_how_it_is(client: httpx.Client) -> None:
    health = client.get("/health").json()
    assert (health["status"], health["model"]) == ("ok", "small")
    assert client.get("/ready").json() == {"ready": True}
    client.post("/predict", json={"images": [pictures(1)[0].tolist()]})  # numbers above 1: refused
    client.post("/predict", json={"images": (pictures(2) / 255).tolist()})
    lines = client.get("/metrics").text.splitlines()
    numbers = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    assert float(numbers['capsnet_requests_total{status="200"}']) >= 1
    assert float(numbers['capsnet_requests_total{status="422"}']) >= 1
    assert float(numbers["capsnet_images_total"]) >= 2
    described = client.get("/openapi.json").json()["paths"]["/predict"]["post"]
    assert set(described["requestBody"]["content"]) == {"application/json", "multipart/form-data", "image/*"}
    assert "503" in described["responses"]


def huge_png(side: int) -> bytes:
    """A PNG whose header promises side × side pixels; they are missing."""
    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    chunks = (b"IHDR" + head, b"IDAT" + zlib.compress(b"\0"))
    parts = (struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_bad_requests_get_a_reason(client: httpx.Client) -> None:
    whole = png(pictures(1)[0])
    nan = '{"images": [[[NaN]]]}'
    for status, why, options in (
        (422, "million pixels", {"content": huge_png(31_623), "headers": {"content-type": "image/png"}}),
        (422, "damaged", {"content": whole[:60], "headers": {"content-type": "image/png"}}),
        (422, "not an image", {"content": b"hello", "headers": {"content-type": "image/png"}}),
        (422, "base64", {"json": {"images": ["?"]}}),
        (422, r"takes (1, 20, 20)", {"json": {"images": [[[0.5]]]}}),
        (422, "equal length", {"json": {"images": [[[0.5], [0.5, 0.5]]]}}),
        (422, "1 to 64", {"json": {"images": []}}),
        (422, "1 to 64", {"json": {"images": ["" for _ in range(65)]}}),
        (422, "list of images", {"json": {"pictures": []}}),
        (422, "", {"content": nan, "headers": {"content-type": "application/json"}}),
        (422, "", {"content": b"{", "headers": {"content-type": "application/json"}}),
        (422, "form", {"content": b"--", "headers": {"content-type": "multipart/form-data"}}),
        (415, "multipart", {"content": b"x", "headers": {"content-type": "text/plain"}}),
        (403, "host", {"json": {}, "headers": {"host": "evil.example"}}),
        (403, "origin", {"json": {}, "headers": {"origin": "http://evil.example"}}),
    ):
        answer = client.post("/predict", **options)
        assert answer.status_code == status, (answer.text, options)
        assert why in answer.json()["detail"]
    assert client.post("/predict", files=[("file", ("a.png", whole))]).status_code == 200


def test_slow_and_silent_clients_are_sent_away(server: tuple[str, object], client: httpx.Client) -> None:
    host, port = server[0].removeprefix("http://").split(":")
    head = f"POST /predict HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: image/png\r\n".encode()
    for begun, status, why in (
        (b"", b"408", b"headers of the request took too long"),
        (head, b"408", b"headers of the request took too long"),
        (head + b"Content-Length: 5000\r\n\r\nx", b"408", b"body took more than 2 seconds"),
        (head + b"Content-Length: 16000001\r\n\r\nx", b"413", b"16,000,000 bytes"),
    ):
        with socket.create_connection((host, int(port)), timeout=30) as slow:
            slow.sendall(begun)
            said = b"".join(iter(lambda slow=slow: slow.recv(4096), b""))  # until the server closes
        assert said.startswith(b"HTTP/1.1 " + status)
        assert why in said
    with socket.create_connection((host, int(port)), timeout=30) as kept:
        kept.sendall(f"GET /health HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
        assert kept.recv(4096).startswith(b"HTTP/1.1 200")
        kept.sendall(b"G")  # a second request begins, and never goes on
        said = b"".join(iter(lambda: kept.recv(4096), b""))
    assert b"408" in said
    assert client.get("/ready").status_code == 200


def test_more_connections_than_it_keeps_get_503_and_it_stays_up(onnx: Path) -> None:
    with served(onnx, patch="worker.MAX_CONNECTIONS = 20") as (address, _), ExitStack() as crowd:
        host, port = address.removeprefix("http://").split(":")
        request = f"GET /health HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode()
        answers = []
        for _ in range(25):
            one = crowd.enter_context(socket.create_connection((host, int(port)), timeout=30))
            one.sendall(request)
            answers.append(one.recv(100)[:12])
        assert answers[0] == b"HTTP/1.1 200"
        assert answers[-1] == b"HTTP/1.1 503"
        crowd.close()
        assert httpx.get(f"{address}/ready", timeout=60).status_code == 200


def test_it_needs_no_pytorch_and_little_memory(onnx: Path) -> None:
    with served(onnx) as (address, process):
        pixels = (pictures(8) / 255).tolist()
        for _ in range(20):
            assert httpx.post(f"{address}/predict", json={"images": pixels}, timeout=60).status_code == 200
        assert psutil.Process(process.pid).memory_info().rss < 200e6
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert process.stderr.read().splitlines()[-1] == "False"
        assert process.wait(60) == 0


@pytest.mark.slow
def test_a_run_is_exported_once_and_served_under_its_name(
    model: CapsNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    model.save_pretrained(tmp_path / "animals-1.2")
    written = set()
    for _ in range(2):
        with served(tmp_path / "animals-1.2") as (address, _):
            assert httpx.get(f"{address}/health", timeout=60).json()["model"] == "animals-1.2"
            body = {"images": (pictures(1) / 255).tolist()}
            assert httpx.post(f"{address}/predict", json=body, timeout=60).status_code == 200
        (exported,) = (tmp_path / "cache").rglob("*.onnx")
        written.add(exported.stat().st_mtime_ns)
    assert len(written) == 1


@pytest.mark.slow
def test_workers_share_the_port_and_their_numbers(onnx: Path) -> None:
    with served(onnx, "--workers", "2") as (address, process):
        for _ in range(30):
            # new connections, which the workers share
            body = {"images": (pictures(1) / 255).tolist()}
            assert httpx.post(f"{address}/predict", json=body, timeout=60).status_code == 200
        assert len(psutil.Process(process.pid).children()) == 2
        text = httpx.get(f"{address}/metrics", timeout=60).text
        assert "capsnet_images_total 30.0" in text
        killed = psutil.Process(process.pid).children()[-1].pid
        os.kill(killed, signal.SIGKILL)
        while len(there := psutil.Process(process.pid).children()) < 2 or killed in {
            one.pid for one in there
        }:
            assert process.poll() is None, "one worker's death ended the server"
        assert httpx.get(f"{address}/ready", timeout=60).status_code == 200


@pytest.mark.slow
def test_workers_that_cannot_start_end_the_server(onnx: Path) -> None:
    with served(onnx, "--workers", "2", patch="sys.executable = '/bin/false'") as (_, process):
        assert process.wait(60) == 2
        assert process.stderr is not None
        assert "3 workers in a row ended soon after their start (code 1)" in process.stderr.read()


def test_at_sigterm_it_ends_well_and_leaves_no_files(onnx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = onnx.parent / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    with served(onnx) as (address, process):
        assert httpx.get(f"{address}/ready", timeout=60).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert list(folder.glob("capsnet*")) == []


def test_what_cannot_be_served_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(CapsnetError, match=r"broken\.onnx: not an ONNX model"):
        OnnxModel.open(tmp_path / "broken.onnx")
    for name, why in (("none.onnx", "no such file"), ("no-such-run", "no model at")):
        done = subprocess.run(
            [sys.executable, "-m", "capsnet", "serve", name], capture_output=True, text=True, check=False
        )
        assert done.returncode == 2
        assert why in done.stderr
        assert "Traceback" not in done.stderr
    monkeypatch.setattr("capsnet.inference.serving.finding.find_spec", lambda name: None)
    with pytest.raises(CapsnetError, match=r"runs/mine: PyTorch is not installed.* capsnet export runs/mine"):
        onnx_of("runs/mine")


def test_json_that_is_deep_or_large_is_refused(client: httpx.Client) -> None:
    deep = "[" * 5000 + "]" * 5000
    answer = client.post(
        "/predict", content='{"images": ' + deep + "}", headers={"content-type": "application/json"}
    )
    assert answer.status_code == 422
    assert "detail" in json.loads(answer.text)
