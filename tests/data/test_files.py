"""Fetching: what arrives is right and whole, or it does not stay; and the error says what to do."""

from __future__ import annotations

import gc
import gzip
import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from capsnet._support.errors import CapsnetError, shown
from capsnet.data.files import Download, fetch, obtain

# pooch leaves the response of a broken download to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

CONTENT = gzip.compress(b"the real thing" * 500)


class Mirror(BaseHTTPRequestHandler):
    """/good/ serves the file, /bad/ another one, /cut/ half of it."""

    def do_GET(self) -> None:
        kind = self.path.split("/")[1]
        if kind == "gone":
            self.send_error(404)
            return
        body = b"<html>sorry</html>" if kind == "bad" else CONTENT
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if kind == "cut" else body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.delenv("CAPSNET_DATA", raising=False)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()
    gc.collect()


def source(*mirrors: str) -> Download:
    return Download(mirrors, {"f.gz": f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"})


def cached(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_a_good_file_is_cached(address: str, tmp_path: Path) -> None:
    path = fetch("some-set", "f.gz", source(f"{address}/good/"))
    assert path.read_bytes() == CONTENT
    assert cached(tmp_path) == [path]
    assert fetch("some-set", "f.gz", source("http://127.0.0.1:9/")) == path, "no second download"


@pytest.mark.parametrize("first", ["bad", "cut", "gone"])
def test_the_next_mirror_helps(address: str, tmp_path: Path, first: str) -> None:
    path = fetch("some-set", "f.gz", source(f"{address}/{first}/", f"{address}/good/"))
    assert path.read_bytes() == CONTENT
    assert cached(tmp_path) == [path]


def test_a_damaged_cache_is_fetched_again(address: str, tmp_path: Path) -> None:
    path = fetch("some-set", "f.gz", source(f"{address}/good/"))
    path.write_bytes(CONTENT[:99])
    assert fetch("some-set", "f.gz", source(f"{address}/good/")).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        ("bad", "has other contents on the mirror"),
        ("cut", "could not be downloaded|has other contents on the mirror"),
        ("gone", "could not be downloaded"),
    ],
)
def test_wrong_and_half_written_downloads_are_removed(
    address: str, tmp_path: Path, kind: str, what: str
) -> None:
    with pytest.raises(CapsnetError, match=what) as caught:
        fetch("some-set", "f.gz", source(f"{address}/{kind}/"))
    assert cached(tmp_path) == []
    assert "put them into DIR/some-set and give --data-dir DIR, or set CAPSNET_DATA=DIR" in str(caught.value)


@pytest.mark.quick
def test_no_network(address: str, tmp_path: Path) -> None:
    with pytest.raises(
        CapsnetError, match=r"f.gz is not on this machine and could not be downloaded \(Conn"
    ) as caught:
        obtain("some-set", ["f.gz"], tmp_path, True, source("http://127.0.0.1:9/"))
    assert f"put them into {tmp_path}/some-set, or give another --data-dir" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_names_are_shown_on_one_line() -> None:
    assert shown("a\nb\x1b[0m\udcff é 数") == "a\\nb\\x1b[0m\\udcff é 数"
